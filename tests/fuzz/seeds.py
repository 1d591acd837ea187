#!/usr/bin/python3
"""Writes each target's first inputs: real records in the target's own form, and shapes that no sample has.

    seeds.py TARGET FOLDER
"""
import base64
import gzip
import hashlib
import json
import pathlib
import subprocess
import sys

TESTS = pathlib.Path(__file__).resolve().parent.parent
SAMPLES = [path.read_bytes() for folder in ('samples/*/*', 'golden/*/*.in') for path in sorted(TESTS.glob(folder))]
RECORDS = [data for data in SAMPLES if len(data) < 16384]

STREAMS = [                          # shapes and damage of whole streams
    b'', b'\n', b'{}', b'[]', b'{}{}', b'[{},{}]', b'{"a":1}\n{"b":2}\n', b'\xef\xbb\xbf{"a":1}\r\n{"b":2}\r\n',
    b'{"records":[{"a":1},{"b":[{}]}]}', b'{"records":[{"a":1}\n', b'{"records":[{"a":1},{"a":2}]}{"records":[{"a":3}]}',
    b'{"count":2,"value":[{"a":1},{"a":2}],"nextLink":"https://x"}', b'[[{"a":1}],[{"a":2}]]', b'{"records":[]}',
    b'{"time":"x","a":{"time":\n{"time":"y"}\n', b'{"a":"\n{"a":1}\n', b'{"a":1}}]}\n{"b":1}', b'text\n[INFO] text\n{"a":1}\n',
    b'{"records":[{"time":1,"a":"},{"time":2},{"time":3}]}', b'{"a":1}\0\0\0{"b":2}', b'[' * 40 + b'{"a":1}' + b']' * 40,
    b'{"a":' * 300 + b'1' + b'}' * 300, b'{"a":"' + b'x' * 3000 + b'"}\n{"b":1}\n', b'x' * 2500 + b'\n{"b":1}',
    b'{"a":"\\ud83d\\ude00\\u0000\\u001b[2J"}', b'{"a":1e400,"b":-0.0,"c":18446744073709551616}', b'{"a":1,"a":2,"A":3,"a_2":4}',
    b'{"a":"\xc2\x9b\x7f\xe2\x80\xae"}', b'{"a":"\xff\xfe"}\n', b"{'a':1}\n", b'{"a":NaN,"b":Infinity}',
]
TEXTS = [                            # JSON alone
    b'0', b'-0', b'-0.0', b'1e308', b'1E-400', b'9223372036854775808', b'-9223372036854775808', b'18446744073709551615',
    b'1.7976931348623157e308', b'4.9e-324', b'0.1', b'123456789.123456789', b'1e21', b'true', b'null', b'"\\u00e9\\ud83d\\ude00"',
    b'" 12"', b'["12","1e2","-5",".5","5.","0x1p3","nan","1e999","True","FALSE"]', b'{"a.b":{"c":1},"a":{"b":2},"":0}',
    b'[' * 256 + b']' * 256, b'[' * 257 + b']' * 257, b'{"\\u0000a":1,"\\u0000b":2}', b' [ 1 , 2 ] ', b'[1,]', b'{"a"}',
    b'"\x7f\xc2\x80\xef\xbf\xbf\xf4\x8f\xbf\xbf"', b'"\\ud800"', b'"\xed\xa0\x80"', b'"\xc0\x80"', b'01', b'1.', b'+1', b'"\t"',
]
CONFS = [
    b'[source a]\ntype = file\npath = /a/**/*.json, /b\n[sink k]\ntype = kafka\nbrokers = a:9092\ntopic = t\n'
    b'kafka.compression.codec = lz4\nspool_max = 1G\nevents = audit,alert\nsources = a\n',
    b'[daemon]\nmemory = 64M\nrecord_max = 4M\nlog_level = debug\nstop = 8s\n[source x]\ntype = file\npath = ${CREDENTIALS_DIRECTORY}/x\n',
    b'[sink s]\ntype = sentinel\nendpoint = https://a.example\ndcr = dcr-0123456789abcdef0123456789abcdef\n'
    b'tenant = 00000000-0000-0000-0000-000000000000\nclient = 00000000-0000-0000-0000-000000000000\nsecret_file = /run/s\n'
    b'proxy = none\nspan = 30m\n[source b]\ntype = file\npath = /x\nparser = nsg-flow\n',
    b'\xef\xbb\xbf[daemon]\r\nmemory=1\r\n', b'[source a]\n[source a]\n', b'a = b\n', b'[sink $${x}]\n', b'[daemon]\nstate_dir = $${FUZZ}\n',
    b'[daemon]\nstate_dir = /${FUZZ}\n', b'[daemon]\x1b[2J\n', b'[\n', b'[daemon]\nmemory = 99999999999999999999G\n',
    b'[daemon]\nmemroy = 1\n', b'[source a]\ntype = fiel\n', b'[daemon]\nstate_dir = "x"\n', b'[daemon]\nstate_dir = x # y\n', b'=\n',
]


HEADERS = [                          # answers' heads, as lines
    b'HTTP/1.1 429 Too Many Requests\r\nRetry-After: 17\r\nx-ms-error-code: Throttled\r\nx-ms-request-id: 1f3c\r\n\r\n{"error":{"code":"T"}}',
    b'HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n', b'HTTP/1.1 503 \r\nretry-after:   Sun, 22 Nov 2026 09:00:00 GMT  \r\n\r\n',
    b'Retry-After: 99999999999999999999\r\n', b'Retry-After: -5\r\nRETRY-AFTER:\r\n\n', b'x-ms-error-code:\x1b[2J\xffA B\r\nx-ms-request-id\r\n',
    b'Retry-After: Sunday, 06-Nov-94 08:49:37 GMT\r\n', b'Retry-After: Sun Nov  6 08:49:37 1994\r\n\r\n' + b'x' * 66000,
]
URLS = [
    b'https://a.example/b', b'http://127.0.0.1:1/', b'http://localhost', b'http://[::1]:80', b'https://u:p@h', b'ftp://h', b'http://h',
    b'https://h:99999', b'https:///', b'https://h\r\nX: y', b'http://127.0.0.1@h/', b'http://0x7f.1/', b'https://\xc3\xa9.example', b'http://[fe80::1%25lo]/',
]
BODIES = [                           # of Entra and of the API
    b'{"token_type":"Bearer","expires_in":3599,"access_token":"abc"}', b'{"token_type":"bearer","expires_in":"1","refresh_in":99,"access_token":"abc"}',
    b'{"token_type":"Bearer","expires_in":1e300,"access_token":"a b\\n"}', b'{"error":"invalid_client","error_codes":[7000215],"trace_id":'
    b'"00000000-0000-0000-0000-000000000000"}', b'{"error_codes":["x"],"trace_id":"\x1b[2J"}', b'{"error":{"code":"InvalidRecords","message":"m"}}',
    b'{"error":{"code":"\\u001b[2J\\n"}}', b'<html>', b'', b'{', b'[]', b'{"access_token":{},"expires_in":[]}', b'\xff\xfe',
]
MANAGED = [                          # of machines' own endpoints
    b'{"access_token":"abc","expires_in":"86400","expires_on":"1700003600","not_before":"1","resource":"https://m","token_type":"Bearer"}',
    b'{"access_token":"abc","expires_on":"1700003600","token_type":"Bearer"}', b'{"access_token":"a","expires_on":-9223372036854775808,"token_type":"Bearer"}',
    b'{"error":"invalid_request","error_description":"Identity not found"}', b'{"error":"invalid_resource"}', b'{"statusCode":401,"message":"m"}',
]
CHALLENGES = [
    b'Basic realm=FOLDER/good.key', b'Basic realm=FOLDER/../secret', b'Basic realm=FOLDER/secret', b'basic REALM=FOLDER/good.key', b'Basic realm=/etc/shadow',
    b'Basic realm=FOLDER//good.key', b'Basic realm=FOLDER/.key', b'Basic realm="FOLDER/good.key"', b'Basic realm=FOLDER/good.key\0', b'Bearer', b'',
]
PATTERNS = [
    b'/a/**/*.json\0/a/b/c.json', b'/a/[a-z]*[!x]?\0/a/bcd', b'/**/**/**/a\0/b/b/b/b/b/b/b/a', b'/a*a*a*a*a*b\0/aaaaaaaaaaaaaaaaaaaaaaaaaaaa',
    b'relative\0/x', b'/[\0/[', b'/[]a]\0/]', b'/[\\]]\0/]', b'/.*\0/.a', b'//a/./../b\0/a', b'/\xff*\0/\xff\xfe', b'/' + b'*/' * 70 + b'\0/a',
]
ROWS = [
    b'v1 2049:131 1024:00112233445566ff 4096:256:ffeeddccbbaa9988 4096:17000000000000000 0 /srv/a%0ab/PT1H.json',
    b'v1 18446744073709551615:0 0:0 0:0:0 18446744073709551615:-1 -1 /', b'v1 1:1 2000:0 1:1:0 0:0 0 /a', b'v2 1:1', b'v1 1:1 1:1 1:1:1 1:1 1 /%', b'',
    b'v1 1:1 1:1 1:1:1 1:1 1 /%00', b'v1 1:1 1:1 1:1:1 1:1 1 /' + b'a' * 5000, b'v1 99999999999999999999:1 1:1 1:1:1 1:1 1 /a',
]


LETTER = (b'{"time":"2026-11-22T09:00:01.2345670Z","sink":"sentinel","schema":"asim","kind":"audit","ticks":17637660012345670,"status":"400",'
          b'"reason":"status 400, InvalidRow, request r: the far end cannot read this","stream":"activity/srv/PT1H.json","position":4711,"message":')
LETTERS = [
    LETTER + b'{"a":[1,{}],"b":"c"}}\n', (LETTER + b'{}}\n') * 9, LETTER + b'{}}', LETTER + b'}\n', LETTER[:90] + b'\n' + LETTER + b'{}}\n', b'\n\n', b'x\n',
    b' ' + LETTER + b'{}}\n', LETTER.replace(b'"400"', b'null') + b'{"m":"\xc2\x9b\x1b[2J\x7f\xe2\x80\xae\xff"}}\n',
    LETTER.replace(b'srv', b'\\u001b[2J\\n\\u009b\\u202e') + b'{"a":"\\"}"}}\n', LETTER.replace(b'4711', b'-1') + b'"\\\n', b'[,"message":}\n',
    b'{"time":"x","stream":"y","position":"1","ticks":1e3,"message":nonsense}\n', LETTER + b'\t{\r}}\r\n', b'{,"message":}\n',
]


LISTING = b'''<?xml version="1.0" encoding="utf-8"?><EnumerationResults ServiceEndpoint="https://a/" ContainerName="c"><Prefix>p</Prefix>\
<Blobs><BlobPrefix><Name>y=2026/</Name></BlobPrefix><Blob><Name Encoded="true">a%0Ab</Name><Properties>\
<Last-Modified>Sun, 22 Nov 2026 09:00:00 GMT</Last-Modified><Etag>"0x8D"</Etag><Content-Length>12</Content-Length>\
<BlobType>AppendBlob</BlobType><AccessTier>Archive</AccessTier></Properties><Metadata><Name>no</Name></Metadata></Blob>\
<Blob><Name>PT1H.json</Name><Deleted>true</Deleted><Snapshot>2026</Snapshot><Properties><Content-Length>9223372036854775807\
</Content-Length><BlobType>BlockBlob</BlobType><ResourceType>directory</ResourceType></Properties></Blob></Blobs><NextMarker>2!8!x</NextMarker></EnumerationResults>'''
EVENTS = [b'{"type":"Microsoft.Storage.BlobCreated","subject":"/blobServices/default/containers/logs/blobs/a/y=2026/PT1H.json"}',
    b'[{"eventType":"Microsoft.Storage.BlobCreated","subject":"/blobServices/default/containers/logs/blobs/a"},{}]', b'{"type":7}', b'']
QUEUE = (b'<?xml version="1.0"?><QueueMessagesList><QueueMessage><MessageId>1</MessageId><PopReceipt>AAA=</PopReceipt><DequeueCount>1'
    b'</DequeueCount><MessageText>TEXT</MessageText></QueueMessage></QueueMessagesList>')
LISTINGS = [LISTING, LISTING[:300], LISTING.replace(b'%0A', b'%'), LISTING.replace(b'12', b'-1'), LISTING.replace(b'Blobs>', b'Blubs>'),
    b'<!DOCTYPE a [<!ENTITY b "c">]><EnumerationResults><NextMarker>&b;</NextMarker></EnumerationResults>', b'<a>' * 20, b'', b'<html></html>',
    b'<EnumerationResults><Blobs><Blob><Name>' + b'n' * 5000 + b'</Name></Blob></Blobs></EnumerationResults>',
    b'<EnumerationResults><Blobs><Blob></Blob></Blobs></EnumerationResults>', b'<EnumerationResults/>x', b'\xff\xfe<\0a\0>\0',
    b'<EnumerationResults><NextMarker>&#x1b;&amp;</NextMarker></EnumerationResults>',
    b'<EnumerationResults><Blobs><Blob><Name><Name>x</Name>y</Name></Blob></Blobs><Blobs><Blob><Name>z</Name></Blob></Blobs></EnumerationResults>']


def zstd(data, *options):
    return subprocess.run(['zstd', '-q', '-c', *options], input=data, stdout=subprocess.PIPE, check=True).stdout


def archives():
    plain = b'{"a":1}\n' * 200
    yield from (plain, b'', gzip.compress(plain), gzip.compress(b''), gzip.compress(plain) + gzip.compress(b'{"b":2}\n'))
    yield from (gzip.compress(plain)[:-5], gzip.compress(plain) + b'\0' * 512, gzip.compress(plain) + b'tail', b'\x1f\x8b', b'\x1f')
    yield from (zstd(plain), zstd(plain, '--check'), zstd(plain) + zstd(b'x'), zstd(plain)[:-3], b'\x28\xb5\x2f\xfd')
    yield from (zstd(plain) + b'\x50\x2a\x4d\x18\x04\0\0\0abcd', zstd(b'x' * 100000, '-19', '--long=27'), gzip.compress(b'\0' * 200000))


def operations():
    values = [b'', b'"a"', b'text', b'\x7f\xff\xff\xff\xff\xff\xff\xff', b'\x80\0\0\0\0\0\0\0', b'192.0.2.1', b'2001:db8::1', b'aa:bb:cc:dd:ee:ff',
              b'2026-11-22T09:00:01.1234567Z', b'{"a":[1,{"b":"c"}]}', b'\x1b[2J\0\xff', b'Name""Value', b'DvcIdDvcId', b'[1,2,3]', b'-0.0', b'true']
    fields = (TESTS.parent / 'parsers' / 'fields.def').read_text().count('\nFIELD(')
    for kind in range(4):
        for value in values:
            out = bytearray([kind])
            for field in range(fields):
                out += bytes([6 if field % 3 else 5, field >> 8, field & 255, len(value)]) + value
            for what in (0, 1, 2, 0, 4, 3, 4):
                out += bytes([what, 0, 7, len(value)]) + value
            yield bytes(out)


def seeds(target):
    match target:
        case 'framer':
            for data in STREAMS + RECORDS:
                yield bytes([7, 255, 0]) + data
            for data in STREAMS:
                for mode in range(1, 5):
                    yield bytes([3, 0, 1, 0, 0, 0, 5, 0, 0, mode, 0x0a]) + data
        case 'json':
            yield from TEXTS + RECORDS + STREAMS
        case 'records':
            for data in STREAMS + SAMPLES:
                yield bytes([0, 200, 0x4a]) + data
            for parser in range(1, 6):
                for data in RECORDS:
                    yield bytes([parser, 16, 0x06]) + data
        case 'events':
            yield from operations()
        case 'conf':
            yield from CONFS + [(TESTS.parent / 'conf' / 'penstock.conf').read_bytes()]
        case 'http':
            for data in HEADERS + URLS:
                yield b'\1' + data
        case 'answers':
            answers = [bytes([what]) + status.to_bytes(2, 'big') + b'\5' + len(body).to_bytes(2, 'big') + body
                       for body in BODIES for what in (2, 4, 0, 27) for status in (0, 2, 3, 7, 302)]
            yield from answers
            for answer in answers:
                yield answers[0] + answer + answer
                yield answers[0] + answers[2] + answers[0] + answer
        case 'sources':
            for data in PATTERNS:
                yield b'\1' + data
            for data in ROWS:
                yield b'\0' + bytes(7) + b'\x20' + bytes(8) + b'0123456789abcdef' + data
        case 'spool':
            def change(what, where, value):
                return bytes([what]) + where.to_bytes(2, 'big') + bytes([value])
            frame = 4224             # where the first one begins; 48 bytes of head
            for mode in range(64):
                for frames in (1, 3, 40):
                    yield bytes([mode, frames, 0, 0])
                    yield bytes([mode, frames, frame >> 8, frame & 255]) + change(4, frame + 300, 0)
            for mode in (1, 2, 8, 16, 33, 41, 44):
                for where in (*range(0, 128, 7), *range(frame, frame + 130, 2)):
                    yield bytes([mode, 40, 0, 0]) + change(where % 2 * 6, where, where % 3 * 127)
                for what in range(9):
                    yield bytes([mode, 40, 0, 0]) + b''.join(change(what, frame + 300 + 99 * i, 255) for i in range(4))
                    yield bytes([mode, 40, 0, 0]) + b''.join(change(32 * i + what, 1, 0) for i in range(4))
                yield bytes([mode, 3, 0, 0]) + change(7, 0, 0) + b'PENSPOOL' + bytes(4220) + b'PFR2' + bytes(100)
        case 'rule':
            for data in rules():
                for which in range(3):
                    yield bytes([which]) + json.dumps(data).encode()
        case 'tokens':
            for body in BODIES + MANAGED:
                for kind in range(6):
                    for status in (1, 7, 9, 11, 802):
                        yield bytes([4 * kind]) + status.to_bytes(2, 'big') + body
            for value in CHALLENGES:
                yield b'\3' + value
        case 'listing':
            for data in LISTINGS:
                yield from (b'\0' + data, b'\7' + data, b'\xff' + data)
        case 'messages':
            for text in EVENTS:
                for body in (text, base64.b64encode(text)):
                    yield b'\7' + body
                    yield b'\0' + QUEUE.replace(b'TEXT', body.replace(b'"', b'&quot;'))
            yield b'\0' + b'<QueueMessagesList>' + b'<QueueMessage/>' * 40
        case 'dead':
            for data in LETTERS:
                yield from (b'\0' + data, b'\x55' + data + data)
        case 'unpack':
            for data in archives():
                yield bytes([15, 100]) + data


def rules():
    whole = json.loads((TESTS.parent / 'conf' / 'dcr.json').read_text())['resources'][1]['properties']
    whole['immutableId'] = 'dcr-' + 'f' * 32
    for stream in whole['streamDeclarations'].values():          # few of each are enough to go on from
        del stream['columns'][6:]
    yield {'properties': whole}
    yield {'properties': {**whole, 'dataFlows': [{**flow, 'transformKql': 'x\x1b[2J', 'outputStream': 'y'} for flow in whole['dataFlows']]}}
    yield {'properties': {**whole, 'dataFlows': [{'streams': 7, 'transform': []}, None]}}
    yield {'properties': {'streamDeclarations': {name: {'columns': [{'name': 'Operation', 'type': 'no\n'}]}
                                                 for name in whole['streamDeclarations']}}}
    yield from ({}, [], {'properties': []}, {'properties': {'streamDeclarations': [], 'dataFlows': {}}})


def main():
    target, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    for data in seeds(target):
        (folder / hashlib.sha1(data).hexdigest()).write_bytes(data)


main()
