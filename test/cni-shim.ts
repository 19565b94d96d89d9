/** Our CNI executables, as a runtime or a main plugin calls them. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { packageRoot } from '../src/kernel/package-root.ts';

export interface CniAnswer {
  readonly status: number | null;
  readonly body: Record<string, unknown>;
}

/** `env`: the CNI_… variables and SLUICE_CNI_SOCKET. Not synchronous: the API server that the agent asks may be in this process. */
export async function callShim(
  executable: string,
  env: Readonly<Record<string, string>>,
  config: object,
): Promise<CniAnswer> {
  const path = join(packageRoot(), 'shim/build', executable);
  const child = spawn(path, { env, stdio: ['pipe', 'pipe', 'inherit'] });
  child.stdin.end(JSON.stringify(config));
  const [[status], output] = await Promise.all([once(child, 'close') as Promise<[number | null]>, text(child.stdout)]);
  return { status, body: output === '' ? {} : (JSON.parse(output) as Record<string, unknown>) };
}
