/** Where commands write. */
import { formatErrorChain } from '../core/error.ts';

export function print(text: string): void {
  process.stdout.write(`${text}\n`);
}

export function printJson(value: unknown): void {
  print(JSON.stringify(value, undefined, 2));
}

/** Of one part of the work; the rest goes on. */
export function warn(error: unknown): void {
  process.stderr.write(`sluice: ${formatErrorChain(error)}\n`);
  process.exitCode = 1;
}

/** "web" is in `namespace`, "demo/web" says so itself. */
export function podPath(pod: string, namespace: string): { readonly namespace: string; readonly name: string } {
  const [first = '', second] = pod.split('/');
  return second === undefined ? { namespace, name: first } : { namespace: first, name: second };
}
