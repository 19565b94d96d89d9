/** The contract, kept by a real kube-apiserver: what keeps the cases themselves honest. */
import { after, before, test } from 'node:test';
import { startRealApiServer, unavailable, type RealApiServer } from '../../../test/real-apiserver/start.ts';
import { runContract } from './run.ts';

const reason = unavailable();
if (reason !== undefined) test('the contract against a real kube-apiserver', { skip: reason });
else {
  let server: RealApiServer;
  before(async () => {
    server = await startRealApiServer();
  });
  after(() => server.stop());
  runContract(() => server, false);
}
