"""A real Chromium without a screen, by its DevTools protocol: loads the status page, looks, and says what it complained about.

    with Browser(folder) as browser:
        browser.show(360, 800, dark=True)
        browser.open(url)
        browser.until('document.title === "Penstock"')
        assert browser.complaints == []
"""
import asyncio
import base64
import json
import os
import re
import shutil
import subprocess
import time

import pytest

from penstock import slower


def chromium():
    return shutil.which('chromium') or shutil.which('chromium-browser')


class Browser:
    def __init__(self, folder):
        self.folder = folder
        self.loop = asyncio.new_event_loop()
        self.number = 0
        self.complaints = []         # console errors, exceptions, refused loads
        self.asked = []              # URLs of every request
        self.served = {}             # path: what to answer in the daemon's place

    def __enter__(self):
        if chromium() is None:
            pytest.skip('chromium is not installed')
        words = ['--headless=new', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--remote-debugging-port=0', '--no-first-run',
                 '--disable-background-networking', '--disable-component-update', '--no-proxy-server',
                 f'--user-data-dir={self.folder}/profile', 'about:blank']
        self.log = open(f'{self.folder}/chromium.log', 'w+')
        self.process = subprocess.Popen([chromium(), *words], stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log,
                                        env={**os.environ, 'HOME': str(self.folder)}, start_new_session=True)
        self.loop.run_until_complete(self._connect())
        for domain in ('Page', 'Runtime', 'Log', 'Network'):
            self.call(f'{domain}.enable')
        self.call('Fetch.enable', patterns=[{'urlPattern': '*'}])
        return self

    def __exit__(self, *_):
        self.loop.run_until_complete(self._disconnect())
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.loop.close()
        self.log.close()

    async def _connect(self):
        import aiohttp
        end = time.monotonic() + 60 * slower()
        while True:
            with open(self.log.name) as log:
                found = re.search(r'DevTools listening on ws://([^/\s]+)/', log.read())
            if found:
                break
            assert self.process.poll() is None and time.monotonic() < end, 'chromium does not start: ' + open(self.log.name).read()[-2000:]
            await asyncio.sleep(0.05)
        self.session = aiohttp.ClientSession()
        async with self.session.get(f'http://{found[1]}/json/list') as answer:
            tabs = await answer.json()
        url = next(tab for tab in tabs if tab['type'] == 'page')['webSocketDebuggerUrl']
        self.line = await self.session.ws_connect(url, max_msg_size=0)

    async def _disconnect(self):
        await self.line.close()
        await self.session.close()

    def call(self, method, **params):
        return self.loop.run_until_complete(asyncio.wait_for(self._call(method, params), 60 * slower()))

    async def _call(self, method, params):
        number = await self._send(method, params)
        while True:
            said = json.loads((await self.line.receive()).data)
            if said.get('id') == number:
                assert 'error' not in said, said
                return said['result']
            await self._event(said)

    async def _send(self, method, params):
        self.number += 1
        await self.line.send_json({'id': self.number, 'method': method, 'params': params})
        return self.number

    async def _event(self, said):
        method, params = said.get('method'), said.get('params', {})
        if method == 'Fetch.requestPaused':
            await self._answer(params)
        elif method == 'Runtime.exceptionThrown':
            self.complaints.append(params['exceptionDetails'].get('exception', {}).get('description', 'exception'))
        elif method == 'Runtime.consoleAPICalled' and params['type'] in ('error', 'warning', 'assert'):
            self.complaints.append(json.dumps(params['args']))
        elif method == 'Log.entryAdded' and params['entry']['level'] in ('error', 'warning'):
            self.complaints.append(params['entry']['text'])
        elif method == 'Page.javascriptDialogOpening':
            self.complaints.append('a dialog: ' + params['message'])
            await self._send('Page.handleJavaScriptDialog', {'accept': False})

    async def _answer(self, params):
        url = params['request']['url']
        self.asked.append(url)
        body = self.served.get(re.sub(r'^https?://[^/]*', '', url))
        if body is None:
            await self._send('Fetch.continueRequest', {'requestId': params['requestId']})
        else:
            await self._send('Fetch.fulfillRequest', {'requestId': params['requestId'], 'responseCode': 200,
                             'responseHeaders': [{'name': 'Content-Type', 'value': 'application/json'}],
                             'body': base64.b64encode(json.dumps(body() if callable(body) else body).encode()).decode()})

    def show(self, width, height, dark=False):
        self.call('Emulation.setDeviceMetricsOverride', width=width, height=height, deviceScaleFactor=1, mobile=width < 600)
        self.call('Emulation.setEmulatedMedia', features=[{'name': 'prefers-color-scheme', 'value': 'dark' if dark else 'light'}])

    def open(self, url):
        """By way of an empty page, so that nothing of the one before is taken for this one."""
        self.call('Page.navigate', url='about:blank')
        self.until('location.href === "about:blank"')
        self.complaints.clear()
        self.asked.clear()
        self.call('Page.navigate', url=url)
        self.until(f'location.href === {json.dumps(url)}')

    def ask(self, expression):
        result = self.call('Runtime.evaluate', expression=expression, returnByValue=True, awaitPromise=True)
        assert 'exceptionDetails' not in result, result
        return result['result'].get('value')

    def until(self, expression, seconds=30):
        """Waits until it is true; what it names need not be there yet."""
        end = time.monotonic() + seconds * slower()
        while not (value := self.ask(f'(() => {{ try {{ return {expression}; }} catch {{ return null; }} }})()')):
            assert time.monotonic() < end, f'waited for {expression}; the page says:\n{self.text()}'
            time.sleep(0.1)
        return value

    def text(self):
        return self.ask('document.body.innerText')

    def screenshot(self, path):
        shot = self.call('Page.captureScreenshot', format='png', captureBeyondViewport=True)
        with open(path, 'wb') as file:
            file.write(base64.b64decode(shot['data']))
