/** The contract, kept by a real kube-apiserver: what keeps the cases themselves honest. And deploy/rbac.yaml, judged by it. */
import { after, before, test } from 'node:test';
import { accountCases } from '../../../test/real-apiserver/accounts.ts';
import { startRealApiServer, unavailable, type RealApiServer } from '../../../test/real-apiserver/start.ts';
import { accountTokens } from '../lifecycle/accounts.ts';
import { runContract } from './run.ts';

const reason = unavailable();
if (reason !== undefined) test('the contract against a real kube-apiserver', { skip: reason });
else {
  let server: RealApiServer;
  before(async () => {
    server = await startRealApiServer(accountTokens);
  });
  after(() => server.stop());
  runContract(() => server, false);
  accountCases(() => server);
}
