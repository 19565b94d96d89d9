/** Rate and ping over time, a line for each mechanism, egress and ingress beside each other: SVG, drawn by ECharts without a browser. */
import { LineChart } from 'echarts/charts';
import { GridComponent, LegendComponent, MarkLineComponent, TitleComponent } from 'echarts/components';
import { init, use } from 'echarts/core';
import { SVGRenderer } from 'echarts/renderers';
import { product, rateBpsOf, type Result } from './bandwidth-case.ts';
import type { Sample } from './bandwidth-load.ts';
import { percentile } from './report.ts';

use([LineChart, GridComponent, LegendComponent, MarkLineComponent, TitleComponent, SVGRenderer]);

const size = { width: 1000, height: 430 };
const directions = ['egress', 'ingress'] as const;
/** Okabe and Ito's, which the colour-blind tell apart; from the fourth on in another order, so that neighbours differ. */
const colours = ['#0072B2', '#E69F00', '#D55E00', '#009E73', '#CC79A7', '#56B4E9', '#999999', '#000000', '#B8A800'];
const preferredRate = '100M';
const preferredLoad = 'tcp1';
const pingStepS = 0.2;
const loadNames: Readonly<Record<string, string>> = {
  tcp: 'TCP flow',
  udp: 'UDP flow of twice the rate',
  small: 'flow of small packets',
};

interface Drawn {
  readonly what: string;
  readonly unit: string;
  /** The axis begins here: what stands still between two retransmissions would take up most of a logarithmic one. */
  readonly least: number;
  readonly limit?: number;
  readonly points: (result: Result) => readonly Sample[];
}

export function drawRates(results: readonly Result[]): string {
  const charted = chartedOf(results);
  const limit = rateBpsOf(firstOf(charted)) / 1e6;
  const points = ({ found }: Result): Sample[] => found.rate.map(({ atS, value }) => ({ atS, value: value / 1e6 }));
  return draw(charted, { what: 'Rate on the wire', unit: 'Mbit/s', least: limit / 10, limit, points });
}

export function drawPings(results: readonly Result[]): string {
  const points = ({ found }: Result): Sample[] => medians(found.pingLoaded);
  return draw(chartedOf(results), { what: 'Ping of an idle flow', unit: 'ms', least: 0.01, points });
}

/** One rate, load and place, since a line is a mechanism. What is not limited only presses the others together. */
function chartedOf(results: readonly Result[]): readonly Result[] {
  const first = results.find(({ rate, load }) => rate === preferredRate && load === preferredLoad) ?? firstOf(results);
  return results.filter(
    ({ rate, load, place, mechanism }) =>
      rate === first.rate && load === first.load && place === first.place && mechanism !== 'no limit',
  );
}

function firstOf(results: readonly Result[]): Result {
  const [first] = results;
  if (first === undefined) throw new RangeError('nothing to draw');
  return first;
}

function draw(charted: readonly Result[], drawn: Drawn): string {
  const names = [...new Set(charted.map(({ mechanism }) => mechanism))];
  const chart = init(null, null, { renderer: 'svg', ssr: true, ...size });
  const axisName = { nameLocation: 'middle', nameTextStyle: { color: '#333' } } as const;
  const seconds = Math.max(...charted.map((result) => result.seconds));
  const xAxis = { type: 'value', min: 0, max: seconds, name: 'seconds', nameGap: 24, ...axisName } as const;
  const yAxis = { type: 'log', min: drawn.least, name: drawn.unit, nameGap: 50, ...axisName } as const;
  chart.setOption({
    ...{ animation: false, backgroundColor: '#ffffff', title: titlesOf(firstOf(charted), drawn.what) },
    // Wide gaps: without a browser, the width of a text is a guess.
    legend: { bottom: 0, data: names, icon: 'roundRect', itemGap: 28 },
    grid: directions.map((_, index) => ({ left: index === 0 ? 75 : 565, width: 405, top: 62, bottom: 90 })),
    xAxis: directions.map((_, gridIndex) => ({ ...xAxis, gridIndex })),
    yAxis: directions.map((_, gridIndex) => ({ ...yAxis, gridIndex })),
    series: charted.map((result) => lineOf(result, colours[names.indexOf(result.mechanism) % colours.length], drawn)),
  });
  const svg = chart.renderToSVGString();
  chart.dispose();
  return `${svg}\n`;
}

function titlesOf({ rate, load, link, kernel }: Result, what: string): object[] {
  const [, protocol = '', flows = ''] = /^([a-z]+)(\d*)$/.exec(load) ?? [];
  const loadName = `${flows === '' ? '1' : flows} ${loadNames[protocol] ?? load}${Number(flows) > 1 ? 's' : ''}`;
  const text = `${what}, limit ${rate}, ${loadName} (${link}, Linux ${kernel})`;
  const each = { top: 34, textAlign: 'center', textStyle: { fontSize: 12 } };
  return [
    { text, left: 'center', top: 4, textStyle: { fontSize: 14 } },
    ...directions.map((direction, index) => ({ text: direction, left: index === 0 ? '27%' : '76%', ...each })),
  ];
}

function lineOf(result: Result, color: string | undefined, { points, least, limit }: Drawn): object {
  const index = directions.indexOf(result.direction);
  const isOurs = result.mechanism.startsWith(product);
  return {
    ...{
      type: 'line',
      name: result.mechanism,
      xAxisIndex: index,
      yAxisIndex: index,
      symbol: 'none',
      z: isOurs ? 3 : 2,
    },
    data: points(result).map(({ atS, value }) => [round(atS), Math.max(round(value), least)]),
    ...{ itemStyle: { color }, lineStyle: { width: isOurs ? 2.5 : 1.2 } },
    ...(limit === undefined ? {} : { markLine: limitLine(limit) }),
  };
}

function limitLine(limit: number): object {
  const lineStyle = { color: '#888', type: 'dashed', width: 1 };
  return { silent: true, symbol: 'none', label: { show: false }, lineStyle, data: [{ yAxis: limit }] };
}

/** A ping each 20 ms is more than a chart can show. */
function medians(samples: readonly Sample[]): Sample[] {
  const bins = Math.ceil((samples.at(-1)?.atS ?? 0) / pingStepS);
  return Array.from({ length: bins }, (_, bin) => {
    const own = samples.filter(({ atS }) => Math.floor(atS / pingStepS) === bin).map(({ value }) => value);
    return { atS: (bin + 0.5) * pingStepS, value: percentile(own, 50) };
  }).filter(({ value }) => !Number.isNaN(value));
}

function round(value: number): number {
  return Number(value.toPrecision(4));
}
