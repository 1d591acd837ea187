"""Records of the four families, made up but of real shape and size, seeded: the same seed gives the same bytes.

Every maker says what it made (Made): records, events, and for flows the sums of bytes and packets, so that a test knows what
must arrive and a benchmark what it has measured. Records are unique; their ids therefore are.

    made = write_activity(path, records=1000, seed=7)
    blob = GrowingBlob(path)
    blob.append(nsg_record(maker)[0])
"""
import os
import random
import time
from dataclasses import dataclass

FIRST_SECOND = 1_795_000_000         # 2026-11-18T06:26:40Z: where made-up time begins
MINUTES = 3000                       # flow records and alerts lie within two days; then time begins again
SUBSCRIPTION = '0f0f0f0f-1111-2222-3333-%012x'
TENANT = 'aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee'


@dataclass
class Made:
    records: int = 0
    events: int = 0
    bytes: int = 0                   # of text
    src_bytes: int = 0               # sums over flow tuples
    dst_bytes: int = 0
    src_packets: int = 0
    dst_packets: int = 0

    def add(self, other):
        for name in vars(other):
            setattr(self, name, getattr(self, name) + getattr(other, name))


class Maker:
    """The random numbers and the stock of texts that records are made from."""

    def __init__(self, seed=1):
        self.random = random.Random(seed)
        self.seed = seed
        self.number = 0
        self.activity_stock = None
        self.nsg_stock = self.vnet_stock = None

    def next(self):
        self.number += 1
        return self.number

    def guid(self):
        n = self.random.getrandbits(128)
        return f'{n >> 96:08x}-{n >> 80 & 0xffff:04x}-4{n >> 68 & 0xfff:03x}-a{n >> 48 & 0xfff:03x}-{n & 0xffffffffffff:012x}'

    def address(self, inside):
        r = self.random.randrange
        return f'10.{r(4)}.{r(16)}.{r(4, 250)}' if inside else f'{r(20, 200)}.{r(256)}.{r(256)}.{r(1, 255)}'


def stamp(second, fraction):
    """As .NET writes it: seven digits."""
    return time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(second)) + f'.{fraction % 10_000_000:07d}Z'


# Activity Log: JSON lines of about 2.9 KB, as the export writes them today.

OPERATIONS = (
    ('MICROSOFT.COMPUTE/VIRTUALMACHINES/WRITE', 'Microsoft.Compute/virtualMachines/write', 'Microsoft.Compute/virtualMachines'),
    ('MICROSOFT.COMPUTE/DISKS/DELETE', 'Microsoft.Compute/disks/delete', 'Microsoft.Compute/disks'),
    ('MICROSOFT.NETWORK/NETWORKSECURITYGROUPS/SECURITYRULES/WRITE', 'Microsoft.Network/networkSecurityGroups/securityRules/write',
     'Microsoft.Network/networkSecurityGroups'),
    ('MICROSOFT.STORAGE/STORAGEACCOUNTS/LISTKEYS/ACTION', 'Microsoft.Storage/storageAccounts/listKeys/action',
     'Microsoft.Storage/storageAccounts'),
    ('MICROSOFT.AUTHORIZATION/ROLEASSIGNMENTS/WRITE', 'Microsoft.Authorization/roleAssignments/write',
     'Microsoft.Authorization/roleAssignments'),
    ('MICROSOFT.KEYVAULT/VAULTS/WRITE', 'Microsoft.KeyVault/vaults/write', 'Microsoft.KeyVault/vaults'),
)
OUTCOMES = (('Start', 'Started.', 'Information'), ('Success', 'Succeeded.OK', 'Information'),
            ('Success', 'Succeeded.Created', 'Information'), ('Failure', 'Failed.Conflict', 'Error'),
            ('Failure', 'Failed.Forbidden', 'Error'), ('Accept', 'Accepted.Accepted', 'Information'))


def activity_template(maker):
    """One record's text around its holes: time, correlation id, duration. Text with % is doubled for the filling."""
    rnd = maker.random
    upper, action, kind = rnd.choice(OPERATIONS)
    result, signature, level = rnd.choice(OUTCOMES)
    subscription = SUBSCRIPTION % rnd.randrange(4096)
    group, name = f'rg-app-{rnd.randrange(100)}', f'resource-{rnd.randrange(10_000)}'
    scope = f'/subscriptions/{subscription}/resourceGroups/{group}/providers/{kind}/{name}'
    person = rnd.randrange(400)
    caller = maker.address(False)
    claims = ','.join([
        '"aud":"https://management.core.windows.net/"', f'"iss":"https://sts.windows.net/{TENANT}/"',
        '"iat":"1795000000","nbf":"1795000000","exp":"1795004500"',
        '"http://schemas.microsoft.com/claims/authnclassreference":"1"', f'"aio":"{maker.guid()}{maker.guid()}"',
        '"http://schemas.microsoft.com/claims/authnmethodsreferences":"pwd,mfa"', f'"appid":"{maker.guid()}"', '"appidacr":"2"',
        f'"http://schemas.xmlsoap.org/ws/2005/05/identity/claims/surname":"Person{person}"',
        f'"http://schemas.xmlsoap.org/ws/2005/05/identity/claims/givenname":"Given{person}"',
        f'"groups":"{",".join(maker.guid() for _ in range(5))}"', f'"ipaddr":"{caller}"', f'"name":"Given{person} Person{person}"',
        f'"http://schemas.microsoft.com/identity/claims/objectidentifier":"{maker.guid()}"', f'"puid":"1003{rnd.randrange(10**12):012d}"',
        '"http://schemas.microsoft.com/identity/claims/scope":"user_impersonation"',
        f'"http://schemas.xmlsoap.org/ws/2005/05/identity/claims/nameidentifier":"{maker.guid()}"',
        f'"http://schemas.microsoft.com/identity/claims/tenantid":"{TENANT}"',
        f'"http://schemas.xmlsoap.org/ws/2005/05/identity/claims/name":"person{person}@example.com"',
        f'"http://schemas.xmlsoap.org/ws/2005/05/identity/claims/upn":"person{person}@example.com"', f'"uti":"{maker.guid()[:22]}"',
        '"ver":"1.0"', f'"wids":"{maker.guid()}"', '"xms_tcdt":"1500000000"'])
    body = ('{\\"location\\":\\"westeurope\\",\\"tags\\":{\\"owner\\":\\"team %d\\"},\\"properties\\":{\\"publicAccess\\":\\"Disabled\\"}}'
            % rnd.randrange(50))
    text = (
        '{"RoleLocation":"West Europe","Stamp":"Example","ReleaseVersion":"7.2026.1.1","time":"\0",'
        f'"resourceId":"{scope.upper()}","operationName":"{upper}","category":"Administrative","resultType":"{result}",'
        f'"resultSignature":"{signature}","durationMs":"\0","callerIpAddress":"{caller}","correlationId":"\0",'
        f'"identity":{{"authorization":{{"scope":"{scope}","action":"{action}","evidence":{{"role":"Owner",'
        f'"roleAssignmentScope":"/subscriptions/{subscription}","roleAssignmentId":"{maker.guid().replace("-", "")}",'
        f'"roleDefinitionId":"{maker.guid().replace("-", "")}","principalId":"{maker.guid().replace("-", "")}","principalType":"User"}}}},'
        f'"claims":{{{claims}}}}},"level":"{level}","properties":{{"requestbody":"{body}","eventCategory":"Administrative",'
        f'"entity":"{scope}","message":"{action}","hierarchy":"{TENANT}/group/{subscription}"}},"tenantId":"{TENANT}"}}\n')
    return text.replace('%', '%%').replace('\0', '%s').encode()


def activity_line(maker):
    """One record with its line break, and what it is."""
    if maker.activity_stock is None:
        maker.activity_stock = [activity_template(maker) for _ in range(256)]
    n = maker.next()
    guid = b'%08x-%04x-4000-8000-%012x' % (maker.seed & 0xffffffff, n >> 48 & 0xffff, n & 0xffffffffffff)
    line = maker.random.choice(maker.activity_stock) % (
        stamp(FIRST_SECOND + n // 50, n * 200_003).encode(), b'%d' % (n * 7919 % 5000), guid)
    return line, Made(1, 1, len(line))


# Flow logs. A tuple's tail (all but its time) comes from a stock; counters are kept beside it for the sums.

@dataclass
class Tuple:
    tail: str
    counts: tuple                    # packets and bytes there, packets and bytes back


def flow_counts(rnd):
    there, back = rnd.randrange(1, 400), rnd.randrange(0, 400)
    return there, there * rnd.randrange(60, 1200), back, back * rnd.randrange(60, 1400)


def nsg_tuple(maker):
    rnd = maker.random
    out = rnd.random() < 0.6
    there, back = (maker.address(out), maker.address(not out))
    denied = rnd.random() < 0.15
    state = 'B' if denied else rnd.choice('BCEE')
    counts = (0, 0, 0, 0) if state == 'B' else flow_counts(rnd)
    tail = (f',{there},{back},{rnd.randrange(1024, 65536)},{rnd.choice((443, 443, 80, 53, 22, 3389))},{rnd.choice("TTTU")},'
            f'{"O" if out else "I"},{"D" if denied else "A"},{state},' + (',,,' if state == 'B' else '%d,%d,%d,%d' % counts))
    return Tuple(tail, counts)


def vnet_tuple(maker):
    rnd = maker.random
    out = rnd.random() < 0.6
    there, back = (maker.address(out), maker.address(not out))
    state = rnd.choice('BCEED')
    counts = (0, 0, 0, 0) if state in 'BD' else flow_counts(rnd)
    tail = (f',{there},{back},{rnd.randrange(1024, 65536)},{rnd.choice((443, 443, 80, 53, 22, 3389))},{rnd.choice((6, 6, 6, 17))},'
            f'{"O" if out else "I"},{state},{rnd.choice(("NX", "NX", "X"))},%d,%d,%d,%d' % counts)
    return Tuple(tail, counts)


def take_tuples(maker, stock, count, first, step):
    """`count` tuples from `first` on: their JSON text and what they add up to."""
    chosen = maker.random.choices(stock, k=count)
    text = ','.join([f'"{first + i * step}{chosen[i].tail}"' for i in range(count)])
    sums = [sum(column) for column in zip(*[one.counts for one in chosen])] or [0, 0, 0, 0]
    return text, Made(0, count, 0, sums[1], sums[3], sums[0], sums[2])


def mac_of(n):
    return f'6045BD{n % 0x1000000:06X}'


def nsg_record(maker, tuples=40, mac=1):
    """One NIC's minute, as it lies in a blob: no comma, no line break."""
    if maker.nsg_stock is None:
        maker.nsg_stock = [nsg_tuple(maker) for _ in range(5000)]
    n = maker.next()
    second = FIRST_SECOND + n % MINUTES * 60
    deny = tuples // 8
    allowed, made = take_tuples(maker, maker.nsg_stock, tuples - deny, second, 1)
    denied, more = take_tuples(maker, maker.nsg_stock, deny, second, 1)
    made.add(more)
    subscription = SUBSCRIPTION % 7
    text = (f'{{"time":"{stamp(second + 60, n * 7919)}","systemId":"05cdbee8-43c6-458e-b53c-{maker.seed & 0xffffffffffff:012x}",'
            f'"macAddress":"{mac_of(mac)}","category":"NetworkSecurityGroupFlowEvent","resourceId":"/SUBSCRIPTIONS/{subscription.upper()}'
            '/RESOURCEGROUPS/RG-NET/PROVIDERS/MICROSOFT.NETWORK/NETWORKSECURITYGROUPS/NSG-WEB",'
            '"operationName":"NetworkSecurityGroupFlowEvents","properties":{"Version":2,"flows":['
            f'{{"rule":"DefaultRule_AllowInternetOutBound","flows":[{{"mac":"{mac_of(mac)}","flowTuples":[{allowed}]}}]}},'
            f'{{"rule":"DefaultRule_DenyAllInBound","flows":[{{"mac":"{mac_of(mac)}","flowTuples":[{denied}]}}]}},'
            '{"rule":"UserRule_quiet","flows":[]}]}}').encode()
    made.records, made.bytes = 1, len(text)
    return text, made


def vnet_record(maker, tuples=40, mac=1):
    if maker.vnet_stock is None:
        maker.vnet_stock = [vnet_tuple(maker) for _ in range(5000)]
    n = maker.next()
    second = FIRST_SECOND + n % MINUTES * 60
    deny = tuples // 8
    allowed, made = take_tuples(maker, maker.vnet_stock, tuples - deny, second * 1000, 311)
    denied, more = take_tuples(maker, maker.vnet_stock, deny, second * 1000, 977)
    made.add(more)
    subscription = SUBSCRIPTION % 7
    network = f'/subscriptions/{subscription}/resourceGroups/rg-net/providers/Microsoft.Network'
    text = (f'{{"time":"{stamp(second + 60, n * 7919)}","flowLogVersion":4,"flowLogGUID":"66aa66aa-0000-0000-0000-'
            f'{maker.seed & 0xffffffffffff:012x}","macAddress":"{mac_of(mac)}","category":"FlowLogFlowEvent",'
            f'"flowLogResourceID":"{network.upper()}/NETWORKWATCHERS/NETWORKWATCHER_WESTEUROPE/FLOWLOGS/FLOWLOG-A",'
            f'"targetResourceID":"{network}/virtualNetworks/vnet-a","operationName":"FlowLogFlowEvent","flowRecords":{{"flows":['
            f'{{"aclID":"{network}/networkSecurityGroups/nsg-web","flowGroups":[{{"rule":"DefaultRule_AllowInternetOutBound",'
            f'"flowTuples":[{allowed}]}},{{"rule":"DefaultRule_DenyAllInBound","flowTuples":[{denied}]}}]}}]}}}}').encode()
    made.records, made.bytes = 1, len(text)
    return text, made


# Defender for Cloud: continuous export, one bare object a message.

ALERTS = (('VM_EICAR', 'Test alert (not a threat)', 'Execution'), ('VM_LoginBruteForceSuccess', 'Successful brute force attack',
          'PreAttack'), ('AppServices_AnomalousPageAccess', 'Anomalous requests pattern detected', 'InitialAccess'),
          ('Storage.Blob_OpenContainersScanning', 'Scanning for publicly open storage containers', 'Collection'))


def defender_alert(maker):
    n = maker.next()
    rnd = maker.random
    kind, title, intent = rnd.choice(ALERTS)
    second = FIRST_SECOND + n % MINUTES * 11
    ident = f'2518298467986649999_{maker.guid()}'
    resource = (f'/subscriptions/{SUBSCRIPTION % rnd.randrange(64)}/resourceGroups/rg-app/providers/Microsoft.Compute/'
                f'virtualMachines/vm-{rnd.randrange(1000)}')
    text = (f'{{"VendorName":"Microsoft","AlertType":"{kind}","StartTimeUtc":"{stamp(second, n)}","EndTimeUtc":"{stamp(second + 5, n)}",'
            f'"ProcessingEndTime":"{stamp(second + 60, n)}","TimeGenerated":"{stamp(second + 61, n)}","ProductName":"Microsoft Defender '
            f'for Cloud","Severity":"{rnd.choice(("High", "Medium", "Low", "Informational"))}","Status":"New","Intent":"{intent}",'
            f'"SystemAlertId":"{ident}","CompromisedEntity":"{resource.rsplit("/", 1)[1]}","AzureResourceId":"{resource}",'
            f'"AlertDisplayName":"{title}","Description":"{title}, seen on {resource.rsplit("/", 1)[1]} {rnd.randrange(1, 90)} times.",'
            '"RemediationSteps":["Look at the processes of this machine.","Reset the account\'s password."],'
            f'"ResourceIdentifiers":[{{"$id":"2","Type":"AzureResource","AzureResourceId":"{resource}"}}],'
            f'"Entities":[{{"$id":"3","Address":"{maker.address(False)}","Location":{{"CountryCode":"nl","City":"Amsterdam","Asn":64496}},'
            f'"Type":"ip"}},{{"$id":"4","HostName":"{resource.rsplit("/", 1)[1]}","AzureID":"{resource}","OSFamily":"Linux","Type":"host"}},'
            f'{{"$id":"5","Name":"root","Host":{{"$ref":"4"}},"Type":"account"}}],"IsIncident":false,"CorrelationKey":"{maker.guid()}",'
            f'"ExtendedProperties":{{"Process Path":"/usr/bin/curl","attempts":"{rnd.randrange(500)}"}},"ExtendedLinks":null,'
            f'"AlertUri":"https://portal.azure.com/#blade/alert/{ident}"}}').encode()
    return text, Made(1, 1, len(text))


# Files.

def write_lines(path, make, maker, records=None, size=None):
    """JSON lines until so many records or so many bytes are written."""
    made = Made()
    with open(path, 'wb') as file:
        while (records is None or made.records < records) and (size is None or made.bytes < size):
            parts = []
            for _ in range(1000):
                if (records is not None and made.records >= records) or (size is not None and made.bytes >= size):
                    break
                text, one = make(maker)
                if not text.endswith(b'\n'):
                    text += b'\n'
                    one.bytes += 1
                parts.append(text)
                made.add(one)
            file.write(b''.join(parts))
    return made


def write_activity(path, records=None, seed=1, size=None, maker=None):
    return write_lines(path, activity_line, maker or Maker(seed), records, size)


def write_alerts(path, records=None, seed=1, size=None, maker=None):
    return write_lines(path, defender_alert, maker or Maker(seed), records, size)


def write_blob(path, make, records=None, seed=1, size=None, tuples=40, macs=1, maker=None):
    """A whole PT1H.json of flow records: one line, no line break at its end."""
    maker = maker or Maker(seed)
    made = Made()
    with open(path, 'wb') as file:
        made.bytes += file.write(b'{"records":[')
        while (records is None or made.records < records) and (size is None or made.bytes < size):
            text, one = make(maker, tuples, made.records % macs + 1)
            if made.records:
                made.bytes += file.write(b',')
            file.write(text)
            made.add(one)
        made.bytes += file.write(b']}')
    return made


def write_nsg(path, records=None, seed=1, **more):
    return write_blob(path, nsg_record, records, seed, **more)


def write_vnet(path, records=None, seed=1, **more):
    return write_blob(path, vnet_record, records, seed, **more)


class GrowingBlob:
    """A PT1H.json as Azure commits it: new records go in before the last two bytes, which are always `]}`."""

    def __init__(self, path):
        self.path = path
        self.count = 0
        with open(path, 'wb') as file:
            file.write(b'{"records":[]}')

    def append(self, *records):
        """One commit: what was `]}` becomes `,{`, in a single write, as a synced copy of the blob shows it."""
        text = b''
        for record in records:
            text += record if self.count == 0 else b',' + record
            self.count += 1
        handle = os.open(self.path, os.O_WRONLY)
        try:
            os.pwrite(handle, text + b']}', os.fstat(handle).st_size - 2)
        finally:
            os.close(handle)
