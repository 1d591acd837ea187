"""A throw-away certificate authority and one server certificate, made by the openssl command in a given folder."""
import os
import pathlib
import ssl
import subprocess


def openssl(*words, variables=None):
    done = subprocess.run(['openssl', *map(str, words)], capture_output=True, text=True, env={**os.environ, **(variables or {})})
    if done.returncode != 0:
        raise RuntimeError(f'openssl {words[0]}: {done.stderr.strip()}')


def make_ca(folder, days=2, **more):
    """ca.pem and ca.key in `folder`; kept when they are there, so that a restarted stand-in stays trusted."""
    folder = pathlib.Path(folder)
    if not (folder / 'ca.pem').exists():
        openssl('req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', days,
                '-subj', '/CN=Penstock test authority', '-keyout', folder / 'ca.key', '-out', folder / 'ca.pem',
                '-addext', 'basicConstraints=critical,CA:TRUE', '-addext', 'keyUsage=critical,keyCertSign,cRLSign', **more)
    return folder / 'ca.pem'


def make_server(folder, names='DNS:localhost,IP:127.0.0.1,IP:::1', days=2, **more):
    """server.pem and server.key, signed by the folder's authority. `more`: the environment's variables, say of a faked clock."""
    folder = pathlib.Path(folder)
    make_ca(folder, days, **more)
    extensions = folder / 'server.ext'
    extensions.write_text(f'subjectAltName={names}\nextendedKeyUsage=serverAuth\nbasicConstraints=CA:FALSE\n'
                          'authorityKeyIdentifier=keyid\n')
    openssl('req', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-subj', '/CN=penstock-farend',
            '-keyout', folder / 'server.key', '-out', folder / 'server.csr')
    openssl('x509', '-req', '-in', folder / 'server.csr', '-CA', folder / 'ca.pem', '-CAkey', folder / 'ca.key',
            '-CAcreateserial', '-days', days, '-extfile', extensions, '-out', folder / 'server.pem', **more)


def server_context(folder):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    load(context, folder)
    return context


def load(context, folder):
    context.load_cert_chain(pathlib.Path(folder) / 'server.pem', pathlib.Path(folder) / 'server.key')
