"""Draws curves as SVG: panels side by side, a legend below, and nothing that needs a library.

    text = draw('Files', 'files', True, [('CPU s/GB', {'to Sentinel': [(1, 5.0), (10, 5.1)]}), …], 'this machine, today')

The y axis begins at zero, or a curve would bend where nothing does; x may go by powers of ten.
"""
import math
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 400, 280             # of a panel
LEFT, RIGHT, TOP, BOTTOM = 52, 16, 52, 46
LINE = 20                            # of the legend, and of the caption
APART = 26                           # two ticks' numbers, at least
COLORS = ('#0b6bcb', '#c9510c', '#2a8a3e', '#8a3ea8')
SHAPES = ('<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{color}"/>',
          '<rect x="{left:.1f}" y="{top:.1f}" width="7" height="7" fill="{color}"/>')


def nice(highest):
    """Ticks from zero to the first round number that is not below, about five of them."""
    step = 10 ** math.floor(math.log10(highest / 5)) if highest > 0 else 1
    step = next(step * times for times in (1, 2, 5, 10) if step * times * 5 >= highest)
    return [step * n for n in range(math.ceil(highest / step - 1e-9) + 1)]


def number(value):
    for size, letter in ((10**9, 'G'), (10**6, 'M'), (10**3, 'k')):
        if value >= size:
            return f'{value / size:g}{letter}'
    return f'{value:g}'


class Panel:
    def __init__(self, label, series, log, left):
        self.label, self.series, self.left = label, series, left
        points = [point for line in series.values() for point in line]
        xs = sorted({x for x, _ in points})
        self.log = log and xs[0] > 0
        self.low, self.high = self.scale(xs[0]), self.scale(xs[-1])
        self.xticks = xs[-1:]
        for x in reversed(xs):
            if self.x(self.xticks[0]) - self.x(x) >= APART:
                self.xticks.insert(0, x)
        self.yticks = nice(max(y for _, y in points) or 1)

    def scale(self, x):
        return math.log10(x) if self.log else x

    def x(self, x):
        part = (self.scale(x) - self.low) / (self.high - self.low) if self.high > self.low else 0.5
        return self.left + LEFT + part * (WIDTH - LEFT - RIGHT)

    def y(self, y):
        return TOP + (1 - y / self.yticks[-1]) * (HEIGHT - TOP - BOTTOM)

    def draw(self, axis):
        begin, end, floor = self.left + LEFT, self.left + WIDTH - RIGHT, self.y(0)
        yield f'<text x="{begin}" y="{TOP - 10}" class="label">{escape(self.label)}</text>'
        for tick in self.yticks:
            yield f'<line x1="{begin}" x2="{end}" y1="{self.y(tick):.1f}" y2="{self.y(tick):.1f}" class="grid"/>'
            yield f'<text x="{begin - 6}" y="{self.y(tick) + 4:.1f}" text-anchor="end">{number(tick)}</text>'
        for tick in self.xticks:
            yield f'<line x1="{self.x(tick):.1f}" x2="{self.x(tick):.1f}" y1="{floor:.1f}" y2="{floor + 4:.1f}" class="axis"/>'
            yield f'<text x="{self.x(tick):.1f}" y="{floor + 17:.1f}" text-anchor="middle">{number(tick)}</text>'
        yield f'<line x1="{begin}" x2="{end}" y1="{floor:.1f}" y2="{floor:.1f}" class="axis"/>'
        yield f'<text x="{(begin + end) / 2:.1f}" y="{floor + 34:.1f}" text-anchor="middle">{escape(axis)}</text>'
        for n, line in enumerate(self.series.values()):
            yield from self.line(sorted(line), COLORS[n % len(COLORS)], SHAPES[n % len(SHAPES)])

    def line(self, points, color, shape):
        path = ' '.join(f'{self.x(x):.1f},{self.y(y):.1f}' for x, y in points)
        yield f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2"/>'
        for x, y in ((self.x(x), self.y(y)) for x, y in points):
            yield shape.format(x=x, y=y, left=x - 3.5, top=y - 3.5, color=color)


def draw(title, axis, log, panels, caption):
    names = list(dict.fromkeys(name for _, series in panels for name in series))
    legend = names if len(names) > 1 else []
    width, height = WIDTH * len(panels), HEIGHT + LINE * (len(legend) + 1)
    lines = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
             f'role="img" aria-label="{escape(title, {chr(34): "&quot;"})}">',
             '<style>text{font:12px sans-serif;fill:#333}.title{font-size:14px;font-weight:bold}.label{font-weight:bold}'
             '.caption{font-size:10px;fill:#777}.grid{stroke:#ddd}.axis{stroke:#333}</style>',
             f'<rect width="{width}" height="{height}" fill="#fff"/>',
             f'<text x="{LEFT}" y="18" class="title">{escape(title)}</text>']
    for n, (label, series) in enumerate(panels):
        lines += Panel(label, series, log, n * WIDTH).draw(axis)
    for n, name in enumerate(legend):
        y, color = HEIGHT + LINE * n + 4, COLORS[n % len(COLORS)]
        lines.append(f'<line x1="{LEFT}" x2="{LEFT + 24}" y1="{y}" y2="{y}" stroke="{color}" stroke-width="2"/>')
        lines.append(SHAPES[n % len(SHAPES)].format(x=LEFT + 12, y=y, left=LEFT + 8.5, top=y - 3.5, color=color))
        lines.append(f'<text x="{LEFT + 32}" y="{y + 4}">{escape(name)}</text>')
    lines.append(f'<text x="{LEFT}" y="{height - 8}" class="caption">{escape(caption)}</text>')
    return '\n'.join([*lines, '</svg>']) + '\n'
