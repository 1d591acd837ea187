"""A throw-away certificate authority and one server certificate, made by the openssl command in a given folder."""
import pathlib
import ssl
import subprocess


def openssl(*words):
    done = subprocess.run(['openssl', *map(str, words)], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f'openssl {words[0]}: {done.stderr.strip()}')


def make_ca(folder):
    """ca.pem and ca.key in `folder`; kept when they are there, so that a restarted stand-in stays trusted."""
    folder = pathlib.Path(folder)
    if not (folder / 'ca.pem').exists():
        openssl('req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', 2,
                '-subj', '/CN=Penstock test authority', '-keyout', folder / 'ca.key', '-out', folder / 'ca.pem',
                '-addext', 'basicConstraints=critical,CA:TRUE', '-addext', 'keyUsage=critical,keyCertSign,cRLSign')
    return folder / 'ca.pem'


def make_server(folder, names='DNS:localhost,IP:127.0.0.1,IP:::1'):
    """server.pem and server.key, signed by the folder's authority."""
    folder = pathlib.Path(folder)
    make_ca(folder)
    extensions = folder / 'server.ext'
    extensions.write_text(f'subjectAltName={names}\nextendedKeyUsage=serverAuth\nbasicConstraints=CA:FALSE\n'
                          'authorityKeyIdentifier=keyid\n')
    openssl('req', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-subj', '/CN=penstock-farend',
            '-keyout', folder / 'server.key', '-out', folder / 'server.csr')
    openssl('x509', '-req', '-in', folder / 'server.csr', '-CA', folder / 'ca.pem', '-CAkey', folder / 'ca.key',
            '-CAcreateserial', '-days', 2, '-extfile', extensions, '-out', folder / 'server.pem')


def server_context(folder):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(pathlib.Path(folder) / 'server.pem', pathlib.Path(folder) / 'server.key')
    return context
