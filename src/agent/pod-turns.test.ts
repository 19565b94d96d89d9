import assert from 'node:assert/strict';
import { it } from 'node:test';
import type { CniRequest } from '../api/cni.ts';
import { podTurns, takingTurns } from './pod-turns.ts';

it('lets no DEL of a pod pass its ADD on the other socket, whatever the sandbox; other pods do not wait', async () => {
  const done: string[] = [];
  const inTurn = podTurns();
  const plugin = takingTurns(async ({ command, args }) => {
    done.push(`${command} ${args['K8S_POD_NAME'] ?? ''}`);
    return undefined;
  }, inTurn);
  const call = (command: CniRequest['command'], name: string) => {
    const args = { K8S_POD_NAMESPACE: 'default', K8S_POD_NAME: name };
    const config = { cniVersion: '1.0.0', name: '', type: '' } as const;
    const request = {
      plugin: 'spiderpool',
      command,
      containerId: 'c',
      ifName: 'eth0',
      args,
      path: '',
      config,
    } as const;
    return plugin(request, new AbortController().signal);
  };
  let resume: () => void = () => undefined;
  const hold = new Promise<void>((resolve) => (resume = resolve));
  const add = inTurn('default/a', async () => {
    await hold;
    done.push('ADD a');
  });
  const del = call('DEL', 'a');
  await call('DEL', 'b');
  await call('CHECK', 'a');
  assert.deepEqual(done, ['DEL b', 'CHECK a']);
  resume();
  await Promise.all([add, del]);
  assert.deepEqual(done.slice(2), ['ADD a', 'DEL a']);
});
