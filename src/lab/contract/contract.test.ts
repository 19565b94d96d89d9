/** The contract, kept by the embedded API server. */
import { after, before } from 'node:test';
import { startTestApiServer, type TestApiServer } from '../api/testing.ts';
import { runContract } from './run.ts';

let server: TestApiServer;
before(async () => {
  server = await startTestApiServer();
});
after(() => server.close());

runContract(() => ({ url: server.url, caCert: server.credentials.caCert, token: server.credentials.token }), true);
