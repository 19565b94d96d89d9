/**
 * What limits have to reach, asked of what was found: how many cases do, and which do not. A rate below its limit says nothing where
 * the CPU was full: these cases are named apart.
 */
import { cpuBaseline, isSameTraffic, placeNames, product, rateBpsOf, type Result } from './bandwidth-case.ts';
import { pingPercentile } from './bandwidth-load.ts';
import { percent } from './bandwidth-rows.ts';
import { percentile } from './report.ts';

interface Goal {
  readonly what: string;
  readonly concerns: (result: Result) => boolean;
  readonly isMet: (result: Result) => boolean;
  /** Whether it falls short, which a full CPU can make as well. */
  readonly isBelow: (result: Result) => boolean;
  readonly found: (result: Result) => string;
}

const fullCpu = 0.97;

const everyCase = (): boolean => true;
const errorOf = (result: Result): number => result.found.wireBps / rateBpsOf(result) - 1;
const firstSecondErrorOf = (result: Result): number => result.found.firstSecondBps / rateBpsOf(result) - 1;
const pingOf = ({ found }: Result): number => pingPercentile(found.pingLoaded, 50);

const goals: readonly Goal[] = [
  {
    what: 'rate within 2 % (5 % at 1M)',
    concerns: everyCase,
    isMet: (result) => Math.abs(errorOf(result)) <= (rateBpsOf(result) <= 1e6 ? 0.05 : 0.02),
    isBelow: (result) => errorOf(result) < 0,
    found: (result) => percent(errorOf(result)),
  },
  {
    what: 'first second within 10 %',
    concerns: everyCase,
    isMet: (result) => Math.abs(firstSecondErrorOf(result)) <= 0.1,
    isBelow: (result) => firstSecondErrorOf(result) < 0,
    found: (result) => percent(firstSecondErrorOf(result)),
  },
  {
    what: 'median ping under load ≤ 0.5 ms at 100M',
    concerns: (result) => rateBpsOf(result) === 100e6,
    isMet: (result) => pingOf(result) <= 0.5,
    isBelow: () => false,
    found: (result) => `${pingOf(result).toFixed(2)} ms`,
  },
];

export function goalsText(results: readonly Result[]): string {
  const ours = results.filter(({ mechanism }) => mechanism === product);
  const links = [...new Set(ours.map(({ link }) => link))];
  return links
    .flatMap((link) => {
      const own = ours.filter((result) => result.link === link);
      return [...goals.flatMap((goal) => goalLines(link, goal, own)), ...cpuLines(link, own, results)];
    })
    .join('\n');
}

function goalLines(link: string, goal: Goal, results: readonly Result[]): string[] {
  const concerned = results.filter(goal.concerns);
  const isCpu = (result: Result): boolean =>
    !goal.isMet(result) && goal.isBelow(result) && result.found.cpuBusy >= fullCpu;
  const asked = concerned.filter((result) => !isCpu(result));
  const missed = asked.filter((result) => !goal.isMet(result));
  if (concerned.length === 0) return [];
  return [
    `${link}: ${goal.what}: ${asked.length - missed.length} of ${asked.length} cases`,
    ...missed.map((result) => `  not ${trafficName(result)}: ${goal.found(result)}`),
    ...concerned.filter(isCpu).map((result) => `  CPU full, ${trafficName(result)}: ${goal.found(result)}`),
  ];
}

/** A single case's CPU is noise on any machine that has something else to do. */
function cpuLines(link: string, ours: readonly Result[], results: readonly Result[]): string[] {
  const ratios = ours.flatMap((result) => {
    const beside = results.find((other) => other.mechanism === cpuBaseline && isSameTraffic(result, other));
    return beside === undefined ? [] : [result.found.cpuSecondsPerGbit / beside.found.cpuSecondsPerGbit];
  });
  if (ratios.length === 0) return [];
  const [low, half, high] = [25, 50, 75].map((p) => percentile(ratios, p).toFixed(2));
  const what = `CPU per Gbit against "${cpuBaseline}"`;
  return [`${link}: ${what}: ${half} (median of ${ratios.length} cases; quartiles ${low} … ${high})`];
}

function trafficName({ rate, direction, load, place }: Result): string {
  return `${rate} ${direction} ${load}, ${placeNames[place]}`;
}
