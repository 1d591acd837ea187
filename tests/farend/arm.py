"""Azure Resource Manager, as far as data collection rules go: deploys a template that makes one, shows it to who may read, and what
it has counted.

Strict: a template may hold nothing that this does not know, its expressions are worked out, and a rule is refused for what
Microsoft's page on the structure of data collection rules forbids: stream names, column names and types, a flow without its
stream, two destinations, output that does not match its table. What is deployed is what the ingestion API then takes.

Known: address, api-version, the shape of a rule and of errors, AuthorizationFailed, ResourceNotFound, InvalidAuthenticationToken.
Guessed: the codes of refused templates; which check comes first.
"""
import datetime
import json
import re
import uuid

from aiohttp import web

import faults
import streams

AUDIENCE = 'https://management.azure.com'           # what tokens must be for
RULE_TYPE = 'Microsoft.Insights/dataCollectionRules'
TABLE_TYPE = 'Microsoft.OperationalInsights/workspaces/tables'
ROLE_TYPE = 'Microsoft.Authorization/roleAssignments'
VERSIONS = {RULE_TYPE: ('2022-06-01', '2023-03-11'), TABLE_TYPE: ('2022-10-01',), ROLE_TYPE: ('2022-04-01',)}
METRICS_VERSIONS = ('2018-01-01', '2023-10-01')
INTERVALS = ('PT1M', 'PT1H')
PUBLISHER = '3913510d-42f4-4e42-8a64-420c390055eb'
SUBSCRIPTION = '99999999-8888-7777-6666-555555555555'
GROUP = 'siem'
LOCATION = 'westeurope'
TABLE_TYPES = {'string', 'int', 'long', 'real', 'boolean', 'dateTime', 'dynamic'}
# What rows get their time from, where the messages have none.
TIMED = re.compile(r"source \| extend TimeGenerated = .*")


class Refused(ValueError):
    """A template that would not deploy."""


# ---- Expressions ----

TOKEN = re.compile(r"\s*(?:('(?:[^']|'')*')|(-?\d+)|([A-Za-z_]\w*)|([()\[\].,]))")


class Expression:
    """'[format(…)]', worked out."""

    def __init__(self, text, template):
        self.template = template
        self.text = text
        self.tokens = []
        at = 0
        while at < len(text.rstrip()):
            found = TOKEN.match(text, at)
            if not found:
                raise Refused(f'InvalidTemplate: cannot read the expression {text} at {at}')
            self.tokens.append(found.groups())
            at = found.end()

    def take(self, sign=None):
        if not self.tokens or (sign is not None and self.tokens[0][3] != sign):
            raise Refused(f'InvalidTemplate: {self.text}: expected {sign}')
        return self.tokens.pop(0)

    def next_is(self, sign):
        return bool(self.tokens) and self.tokens[0][3] == sign

    def value(self):
        string, number, name, _ = self.take()
        if string is not None:
            value = string[1:-1].replace("''", "'")
        elif number is not None:
            value = int(number)
        elif name is not None:
            value = self.call(name)
        else:
            raise Refused(f'InvalidTemplate: {self.text}: expected a value')
        while self.next_is('.') or self.next_is('['):
            if self.take()[3] == '.':
                value = value[self.take()[2]]
            else:
                value = value[self.value()]
                self.take(']')
        return value

    def call(self, name):
        self.take('(')
        given = []
        while not self.next_is(')'):
            given.append(self.value())
            if not self.next_is(')'):
                self.take(',')
        self.take(')')
        function = getattr(self.template, 'do_' + name.lower(), None)
        if function is None:
            raise Refused(f'InvalidTemplate: no such function: {name}')
        return function(*given)

    def result(self):
        value = self.value()
        if self.tokens:
            raise Refused(f'InvalidTemplate: {self.text}: something follows the value')
        return value


class Template:
    def __init__(self, template, parameters):
        only(template, 'template', '$schema', 'contentVersion', 'parameters', 'resources', 'outputs', optional=('metadata',))
        self.template = template
        self.deployed = {}
        declared = template['parameters']
        if set(parameters) - set(declared):
            raise Refused(f'InvalidTemplate: no such parameters: {set(parameters) - set(declared)}')
        self.parameters = {}
        for name, parameter in declared.items():
            only(parameter, name, 'type', 'metadata', optional=('defaultValue',))
            if name not in parameters and 'defaultValue' not in parameter:
                raise Refused(f'InvalidTemplate: the parameter {name} has no value')
            self.parameters[name] = parameters.get(name, self.evaluate(parameter.get('defaultValue')))

    def evaluate(self, value):
        if isinstance(value, dict):
            return {key: self.evaluate(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.evaluate(item) for item in value]
        if isinstance(value, str) and value.startswith('[') and value.endswith(']'):
            return Expression(value[1:-1], self).result()
        return value

    def do_parameters(self, name):
        return self.parameters[name]

    def do_resourcegroup(self):
        return {'location': LOCATION}

    def do_resourceid(self, kind, *names):
        provider, *types = kind.split('/')
        if len(types) != len(names):
            raise Refused(f'InvalidTemplate: {kind} wants {len(types)} names, not {len(names)}')
        return (f'/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}/providers/{provider}/' +
                '/'.join(f'{a}/{b}' for a, b in zip(types, names)))

    def do_subscriptionresourceid(self, kind, name):
        return f'/subscriptions/{SUBSCRIPTION}/providers/{kind}/{name}'

    def do_format(self, text, *values):
        return text.format(*values)

    def do_split(self, text, sign):
        return text.split(sign)

    def do_last(self, values):
        return values[-1]

    def do_guid(self, *values):
        return str(uuid.uuid5(uuid.NAMESPACE_URL, '-'.join(values)))

    def do_reference(self, ident, version):
        if ident not in self.deployed:
            raise Refused(f'InvalidTemplate: {ident} is not deployed here')
        if version not in VERSIONS[RULE_TYPE]:
            raise Refused(f'InvalidApiVersionParameter: {version}')
        return self.deployed[ident]


def only(given, where, *names, optional=()):
    if set(names) - set(given) or set(given) - set(names) - set(optional):
        raise Refused(f'InvalidTemplate: {where}: expected {sorted(names)}, found {sorted(given)}')


# ---- What a rule and a table may be ----

def read_columns(columns, where, types, *more):
    """{name: type} in the words of stream declarations."""
    read = {}
    for column in columns:
        only(column, where, 'name', 'type', *more)
        name, kind = column['name'], column['type']
        if not streams.COLUMN_NAME.match(name) or name in streams.RESERVED_COLUMNS or name in read:
            raise Refused(f'InvalidPayload: {where}: column {name}')
        if kind not in types or not all(column[key] for key in more):
            raise Refused(f'InvalidPayload: {where}: column {name}: {kind}')
        read[name] = kind.lower()
    if len(read) > 500:
        raise Refused(f'InvalidPayload: {where}: {len(read)} columns')
    return read


def read_table(resource, workspace):
    only(resource, 'table', 'type', 'apiVersion', 'name', 'properties')
    properties = resource['properties']
    only(properties, 'table', 'plan', 'schema')
    only(properties['schema'], 'schema', 'name', 'columns')
    name = properties['schema']['name']
    if resource['name'] != f'{workspace}/{name}' or not re.fullmatch(r'[A-Za-z]\w{0,60}_CL', name, re.ASCII):
        raise Refused(f'InvalidPayload: the table {resource["name"]} is called {name}')
    columns = read_columns(properties['schema']['columns'], name, TABLE_TYPES, 'description')
    if columns.get('TimeGenerated') != 'datetime':
        raise Refused(f'InvalidPayload: the table {name} has no TimeGenerated')
    return name, columns


def read_rule(properties, workspace_id, tables):
    """{stream: Stream}; refuses what the service would refuse."""
    only(properties, 'rule', 'streamDeclarations', 'destinations', 'dataFlows')
    declared = {}
    for name, stream in properties['streamDeclarations'].items():
        only(stream, name, 'columns')
        if not re.fullmatch(r'Custom-[\w.-]+', name, re.ASCII):
            raise Refused(f'InvalidPayload: stream {name}')
        declared[name] = read_columns(stream['columns'], name, set(streams.CHECKS))
    if properties['destinations'] != {'logAnalytics': [{'name': 'workspace', 'workspaceResourceId': workspace_id}]}:
        raise Refused('InvalidPayload: destinations')
    taken = {}
    for flow in properties['dataFlows']:
        only(flow, 'data flow', 'streams', 'destinations', 'transformKql', 'outputStream')
        if len(flow['streams']) != 1 or flow['destinations'] != ['workspace'] or flow['streams'][0] not in declared:
            raise Refused(f'InvalidPayload: data flow of {flow["streams"]}')
        if flow['streams'][0] in taken:
            raise Refused(f'InvalidPayload: two data flows for {flow["streams"][0]}')
        taken[flow['streams'][0]] = read_flow(flow, declared[flow['streams'][0]], tables)
    if declared.keys() != taken.keys():
        raise Refused('InvalidPayload: a stream without a data flow')
    return taken


def read_flow(flow, columns, tables):
    kind, _, table = flow['outputStream'].partition('-')
    if kind == 'Microsoft' and (streams.TABLES / f'{table}.csv').exists():
        known = streams.table_columns(table)
    elif kind == 'Custom' and table in tables:
        known = tables[table]
    else:
        raise Refused(f'InvalidOutputTable: {flow["outputStream"]}')
    timed = TIMED.fullmatch(flow['transformKql']) is not None
    if flow['transformKql'] != 'source' and not timed:
        raise Refused(f'InvalidTransformQuery: {flow["transformKql"]}')
    for name, column in {**columns, **({'TimeGenerated': 'datetime'} if timed else {})}.items():
        if known.get(name) != column:
            raise Refused(f'InvalidTransformOutput: {table}: {name} is {known.get(name)} and not {column}')
    if not timed and columns.get('TimeGenerated') != 'datetime':
        raise Refused(f'InvalidTransformOutput: {table}: no TimeGenerated')
    return streams.Stream(flow['streams'][0], columns, timed)


class Arm:
    def __init__(self, entra, ingestion):
        self.entra, self.ingestion = entra, ingestion
        self.endpoint = None
        self.readable = True         # the client may read rules
        self.rules = {}              # resource id in lower case -> the rule
        self.roles = []              # (principal, scope) that may publish
        self.outputs = None          # of the last deployment
        self.counted = {}            # metrics that say otherwise; None: there is no such one

    def change(self, readable=None, properties=None, counted=None):
        """Behind the template's back: what is shown, not what the ingestion API takes."""
        if readable is not None:
            self.readable = readable
        self.counted.update(counted or {})
        for rule in self.rules.values():
            rule['properties'].update(properties or {})

    def deploy(self, template, parameters):
        """The outputs; or Refused."""
        given = Template(template, parameters)
        workspace_id = given.parameters['workspaceResourceId']
        workspace = workspace_id.split('/')[-1]
        tables, rule = {}, None
        for resource in map(given.evaluate, template['resources']):
            if resource['apiVersion'] not in VERSIONS.get(resource['type'], ()):
                raise Refused(f'NoRegisteredProviderFound: {resource["type"]} {resource["apiVersion"]}')
            if resource['type'] == TABLE_TYPE:
                tables.update([read_table(resource, workspace)])
            elif resource['type'] == RULE_TYPE:
                rule = self.deploy_rule(given, resource, workspace_id, tables)
            else:
                self.deploy_role(given, resource, rule)
        return {name: given.evaluate(output['value']) for name, output in template['outputs'].items()}

    def deploy_rule(self, given, resource, workspace_id, tables):
        only(resource, 'rule', 'type', 'apiVersion', 'name', 'location', 'kind', 'dependsOn', 'properties')
        workspace = workspace_id.split('/')[-1]
        if resource['kind'] != 'Direct' or resource['location'] != LOCATION:
            raise Refused('InvalidPayload: kind or location')
        if resource['dependsOn'] != [given.do_resourceid(TABLE_TYPE, workspace, table) for table in tables]:
            raise Refused('InvalidOutputTable: the rule must wait for its tables')
        self.ingestion.streams = read_rule(resource['properties'], workspace_id, tables)
        ident = given.do_resourceid(RULE_TYPE, resource['name'])
        rule = self.make_rule(ident, resource['properties'])
        given.deployed[ident] = rule['properties']
        return rule

    def make_rule(self, ident, properties):
        immutable = next(iter(self.ingestion.dcrs))
        rule = {'id': ident, 'name': ident.split('/')[-1], 'type': RULE_TYPE, 'location': LOCATION, 'kind': 'Direct',
                'etag': '"0"', 'properties': {**properties, 'immutableId': immutable, 'provisioningState': 'Succeeded',
                                              'endpoints': {'logsIngestion': self.endpoint}}}
        self.rules[ident.lower()] = rule
        return rule

    def deploy_role(self, given, resource, rule):
        only(resource, 'role', 'type', 'apiVersion', 'name', 'scope', 'dependsOn', 'properties')
        properties = resource['properties']
        only(properties, 'role', 'roleDefinitionId', 'principalId', 'principalType')
        uuid.UUID(resource['name']), uuid.UUID(properties['principalId'])
        if resource['scope'] != rule['id'] or resource['dependsOn'] != [rule['id']]:
            raise Refused('InvalidTemplate: the role is on something else')
        if not properties['roleDefinitionId'].endswith('/roleDefinitions/' + PUBLISHER):
            raise Refused('RoleDefinitionDoesNotExist')
        self.roles.append((properties['principalId'], resource['scope']))

    async def on_get(self, request):
        entry = self.ingestion.store.begin('arm')
        fault = self.ingestion.faults.next('arm')
        try:
            response = await self.ingestion.misbehave(request, fault) if fault is not None else None
            if response is None:
                response = self.answer(request)
            entry.status = response.status
        except faults.Dropped:
            response = web.Response()
        finally:
            self.ingestion.store.end(entry)
        return response

    def rows_by_minute(self):
        return dict(self.ingestion.store.db.execute(
            "SELECT CAST(at / 60 AS INTEGER), sum(rows) FROM requests WHERE kind = 'ingest' AND rows > 0 GROUP BY 1"))

    def points(self, name, sum_, start, end, minutely):
        """One of an hour with all that was ever accepted; or one a minute, those with nothing without a number, as the service
        has them. What was set by hand stands in the last."""
        if not minutely:
            return [{'timeStamp': start, 'total': float(sum_), 'count': float(sum_)}]
        first, last = (int(datetime.datetime.fromisoformat(text.replace('Z', '+00:00')).timestamp()) // 60 for text in (start, end))
        counts = self.rows_by_minute() if name == 'RowsReceived_Count' and name not in self.counted else {last - 1: sum_}
        return [{'timeStamp': datetime.datetime.fromtimestamp(minute * 60, datetime.timezone.utc).strftime('%Y-%m-%dT%H:%M:%SZ'),
                 **({word: float(counts[minute]) for word in ('total', 'count')} if counts.get(minute) else {})}
                for minute in range(first, last)]

    def metrics(self, request, rule):
        """Azure Monitor's, of the rule."""
        query = dict(request.query)
        if set(query) != {'api-version', 'metricnames', 'aggregation', 'interval', 'timespan'} or query['interval'] not in INTERVALS:
            return error(400, 'BadRequest', 'The query is not what is expected.')
        start, _, end = query['timespan'].partition('/')
        minutely = query['interval'] == 'PT1M'
        if not (streams.DATETIME.match(start) and streams.DATETIME.match(end) and start < end) or (
                minutely and not (start.endswith(':00Z') and end.endswith(':00Z'))):
            return error(400, 'BadRequest', 'The timespan is none.')
        lost = self.ingestion.store.db.execute("SELECT count(*) FROM violations WHERE what = 'undeclared-column'").fetchone()[0]
        counted = {'RowsReceived_Count': sum(self.ingestion.store.rows.values()), 'RowsDropped_Count': 0,
                   'TransformationErrors_Count': 0, 'ColumnsDroppedCount': lost, **self.counted}
        names = query['metricnames'].split(',')
        if any(counted.get(name) is None for name in names):
            return error(400, 'BadRequest', f'Failed to find metric configuration for {names}. Valid metrics: {list(counted)}')
        value = [{'id': f'{rule["id"]}/providers/Microsoft.Insights/metrics/{name}', 'type': 'Microsoft.Insights/metrics',
                  'name': {'value': name, 'localizedValue': name}, 'unit': 'Count', 'errorCode': 'Success',
                  'timeseries': [{'metadatavalues': [], 'data': self.points(name, counted[name], start, end, minutely)}]}
                 for name in names]
        return web.json_response({'cost': 59, 'timespan': query['timespan'], 'interval': query['interval'], 'value': value,
                                  'namespace': RULE_TYPE, 'resourceregion': LOCATION})

    def answer(self, request):
        trouble = self.entra.trouble(request.headers.get('Authorization'), AUDIENCE)
        if trouble is not None:
            return error(401, 'InvalidAuthenticationToken', trouble)
        path, metrics, _ = request.path.lower().partition('/providers/microsoft.insights/metrics')
        version = request.query.get('api-version')
        if version not in (METRICS_VERSIONS if metrics else VERSIONS[RULE_TYPE]):
            return error(400, 'InvalidApiVersionParameter', f'The api-version {version!r} is invalid.')
        kind = 'metrics' if metrics else 'dataCollectionRules'
        if not self.readable:
            return error(403, 'AuthorizationFailed', f"The client '{self.entra.client}' does not have authorization to perform "
                         f"action 'Microsoft.Insights/{kind}/read' over scope '{request.path}'.")
        rule = self.rules.get(path)
        if rule is None:
            return error(404, 'ResourceNotFound', f"The Resource '{request.path}' was not found.")
        return self.metrics(request, rule) if metrics else web.json_response(rule)


def error(status, code, message):
    return web.Response(status=status, text=json.dumps({'error': {'code': code, 'message': message}}),
                        content_type='application/json')
