"""The status page in a real Chromium: one look says what is wrong. It loads nothing from elsewhere, complains about nothing, fits a
phone, follows light and dark, and takes whatever text the daemon gives it for text. Screenshots lie in the test's folder."""
import pytest

from browser import Browser
from penstock import wait_until
from records import write_activity
from window import Window

FAST = {'flush': '100ms', 'spool_after': '200ms', 'retry_min': '50ms', 'retry_max': '300ms'}
NOWHERE = {'type': 'kafka', 'brokers': '127.0.0.1:1', 'topic': 't', 'timeout': '1s', **FAST}

pytestmark = pytest.mark.plain       # the page is the same under sanitizers, and test_status.py asks the daemon there


@pytest.fixture(scope='module')
def browser(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp('browser')) as started:
        yield started


@pytest.fixture
def page(browser):
    browser.served.clear()
    browser.show(1280, 900)
    return browser


@pytest.fixture
def logs(tmp_path):
    (tmp_path / 'logs').mkdir()
    return tmp_path / 'logs'


def files(folder, name='logs'):
    return f'source {name}', {'type': 'file', 'path': f'{folder}/*.json'}


def card(name):
    return f'document.querySelector(\'.card[data-name="{name}"]\')'


def mood(page, name):
    return page.ask(f'{card(name)}?.dataset.mood')


def fits(page):
    """Nothing is wider than the window; tables scroll in a box of their own."""
    return page.ask('document.documentElement.scrollWidth <= document.documentElement.clientWidth')


def sink(name, **more):
    return {'name': name, 'type': 'kafka', 'schema': 'raw', 'mood': 'ok', 'state': 'delivering', 'flow': 'open', 'refused': 0, 'hold_ms': 0,
            'stalled_ms': 0, 'paused_ms': 0, 'in_flight': 0, 'in_turn': 0, 'retries': 0, 'spool_bytes': 0, 'spool_max': 4 << 30,
            'damaged': 0, 'dead_bytes': 0, 'dead_max': 1 << 30, 'taken': 5, 'delivered': 5, 'dead': 0, 'dropped': 0, 'held': 0,
            'spooled': 0, 'trouble': None, 'answers': [], **more}


def source(name, **more):
    return {'name': name, 'type': 'file', 'unit': 'bytes', 'mood': 'ok', 'state': 'reading', 'read': 5, 'unknown': 0, 'malformed': 0,
            'troubles': 0, 'behind': 0, 'stalled_ms': 0, 'numbers': {}, **more}


def status(sources, sinks, ready=True, reasons=(), **daemon):
    routes = [{'source': a['name'], 'sink': b['name'], 'taken': 5, 'delivered': 5, 'dead': 0, 'dropped': 0, 'held': 0, 'spooled': 0}
              for a in sources for b in sinks]
    return {'now': '2026-11-22T10:00:00Z', 'ready': ready, 'reasons': list(reasons), 'sources': sources, 'sinks': sinks, 'routes': routes,
            'daemon': {'version': '1', 'started': '2026-11-20T10:00:00Z', 'held': 1 << 20, 'peak': 1 << 20, 'budget': 64 << 20,
                       'flow': 'open', 'jobs': 0, 'workers': 2, 'unsaved': 0, **daemon}}


def test_a_daemon_that_is_well(logs, tmp_path, far_end, penstock, page):
    write_activity(logs / 'a.json', 300, seed=1)
    daemon = penstock(files(logs), far_end.sink(**FAST), listen='127.0.0.1:0').start()
    window = Window(daemon)
    wait_until(lambda: far_end.count() == 300, daemon=daemon)
    page.open(window.url)
    page.until('document.querySelector("#verdict").className === "ok"')
    assert 'All is well' in page.text() and page.ask('document.title') == 'Penstock'
    assert mood(page, 'logs') in ('ok', 'idle') and mood(page, 'sentinel') in ('ok', 'idle')
    assert page.ask('document.querySelectorAll("#ledger tbody tr").length') == 1
    assert '300' in page.ask('document.querySelector("#ledger tbody").innerText')
    page.until('performance.getEntriesByName(location.origin + "/status.json").length >= 3')      # it asks again and again
    assert fits(page)
    page.screenshot(tmp_path / 'well.png')
    assert {url.split('/')[-1] for url in page.asked} == {'', 'page.css', 'page.js', 'icon.svg', 'status.json'}
    assert all(url.startswith(window.url) for url in page.asked)
    assert page.complaints == []


def test_one_look_says_what_is_wrong(logs, tmp_path, far_end, penstock, page):
    """One daemon with all of it: a sink that refuses, one that is away, one whose spool is full, one with dead letters."""
    write_activity(logs / 'a.json', 4000, seed=1)
    far_end.settings(poison=['EventOriginalUid'])
    rights = far_end.sink('rights', **{**FAST, 'secret_file': tmp_path / 'secret'})
    (tmp_path / 'secret').write_text('not the secret')
    (tmp_path / 'secret').chmod(0o600)
    daemon = penstock(files(logs), far_end.sink('letters', **FAST, dead_in_a_row=0), rights, ('sink away', NOWHERE),
                      ('sink full', {**NOWHERE, 'spool_max': '3M', 'spool_compress': 'no'}), listen='127.0.0.1:0', stalled_after='2s').start()
    window = Window(daemon)
    wait_until(lambda: window.sink('full')['flow'] == 'paused' and window.sink('rights')['refused'] and window.sink('letters')['dead'],
               120, 'all the trouble', daemon)
    wait_until(lambda: not window.json()['ready'], 60, 'not ready', daemon)
    page.open(window.url)
    page.until(f'{card("full")}?.querySelector(".pill").textContent === "spool full"')
    assert page.ask('document.querySelector("#verdict").className') == 'bad'
    sentence = page.ask('document.querySelector("#sentence").textContent')
    assert 'full: spool full' in sentence and 'rights: refuses us' in sentence and 'messages wait on disk' in sentence
    assert mood(page, 'full') == mood(page, 'rights') == 'bad' and mood(page, 'away') in ('warn', 'bad')
    assert mood(page, 'letters') in ('warn', 'bad')
    assert 'penstock dead list letters' in page.text() and 'secret' in page.ask(f'{card("rights")}.innerText')
    assert page.ask(f'{card("full")}.querySelector(".tank").classList.contains("bad")')
    page.until('document.querySelector("#reasons").innerText.includes("its spool has taken nothing more")')
    assert page.ask('document.querySelectorAll("#pipes path.bad").length') >= 2
    assert fits(page)
    page.screenshot(tmp_path / 'trouble.png')
    page.show(360, 740, dark=True)
    page.until('matchMedia("(prefers-color-scheme: dark)").matches && innerWidth === 360')
    assert fits(page)
    page.screenshot(tmp_path / 'trouble-phone-dark.png')
    assert page.complaints == []


def test_light_dark_and_every_width(penstock, logs, page):
    daemon = penstock(files(logs), ('sink siem', NOWHERE), listen='127.0.0.1:0').start()
    url = Window(daemon).url
    long = 'a-name-that-goes-on-and-on-' * 5
    page.served['/status.json'] = status(
        [source('activity'), source(long, numbers={'hours_missing': 12345678901234567890})],
        [sink('sentinel'), sink(long, mood='bad', state='dead letters full', trouble='x' * 256, dead=10**15, spool_bytes=3 << 30, spooled=10**18)],
        False, ['y' * 400])
    grounds = set()
    for width in (320, 360, 414, 768, 896, 1024, 1280, 1920):
        for dark in (False, True):
            page.show(width, 800, dark)
            page.open(url)
            page.until(f'innerWidth === {width} && document.querySelectorAll(".card[data-name]").length === 4')
            assert fits(page), width
            grounds.add(page.ask('getComputedStyle(document.body).backgroundColor'))
    assert len(grounds) == 2
    assert page.complaints == []


def test_text_stays_text(penstock, logs, page):
    """Names come from the configuration and troubles from far ends: neither gets to be markup, and the policy would stop a script."""
    daemon = penstock(files(logs), ('sink siem', NOWHERE), listen='127.0.0.1:0').start()
    evil = '<img src=x onerror=alert(1)><script>alert(2)</script>"\'`${alert(3)}'
    page.served['/status.json'] = status([source(evil, numbers={evil: 1})], [sink(evil, mood='warn', state=evil, trouble=evil)], False, [evil])
    page.open(Window(daemon).url)
    page.until('document.querySelectorAll(".card[data-name]").length === 2')
    assert page.text().count(evil) >= 6
    assert page.ask('document.querySelectorAll("main img, main script").length') == 0
    assert page.complaints == []
    page.ask('''(() => { const made = document.createElement('script'); made.textContent = 'window.ran = true'; document.body.append(made);
                document.body.insertAdjacentHTML('beforeend', '<img src=x onerror="window.ran = true">'); })()''')
    page.until('true')
    assert page.ask('window.ran === undefined')
    assert page.ask('fetch("http://127.0.0.1:1/").then(() => "went", () => "refused")') == 'refused'
    assert any('Content Security Policy' in complaint for complaint in page.complaints)


def test_what_did_not_arrive_is_said(penstock, logs, page):
    daemon = penstock(files(logs), ('sink siem', NOWHERE), listen='127.0.0.1:0').start()
    page.served['/status.json'] = status([source('activity')], [sink('well', arrival_differs=0),
                                         sink('lossy', mood='bad', state='not all arrives', arrival_differs=1)])
    page.open(Window(daemon).url)
    page.until('document.querySelectorAll(".card[data-name]").length === 3')
    assert page.text().count('Not all that its DCR accepted has arrived') == 1


def test_a_reload_that_failed_is_said(penstock, logs, page):
    daemon = penstock(files(logs), ('sink siem', NOWHERE), listen='127.0.0.1:0').start()
    served = status([source('activity')], [sink('siem')], config_good=0, config_loaded='2026-11-22T07:00:00Z')
    page.served['/status.json'] = served
    page.open(Window(daemon).url)
    page.until('document.querySelector("#verdict").className === "warn"')
    assert 'The last reload failed, the configuration of 3 h ago goes on' in page.text()
    served['daemon']['config_good'] = 1
    page.until('document.querySelector("#verdict").className === "ok"')


def test_it_says_when_nobody_answers(penstock, logs, page):
    daemon = penstock(files(logs), ('sink siem', NOWHERE), listen='127.0.0.1:0').start()
    window = Window(daemon)
    page.open(window.url)
    page.until('document.querySelector("#age").textContent === "live"')
    daemon.pause()
    page.until('document.querySelector("#sentence").textContent.startsWith("The daemon does not answer")', 60)
    assert page.ask('document.body.classList.contains("stale") && document.title === "✕ Penstock"')
    daemon.resume()
    page.until('!document.body.classList.contains("stale") && document.querySelector("#age").textContent === "live"', 60)
