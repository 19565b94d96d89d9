// Opens connections from inside one pod's netns, all of a request at once, and says how each ended. Plain JavaScript,
// so that nine of them start in a moment. One JSON request a line on stdin: {id, probes: [{address, port, protocol,
// expect, timeoutMs}]}; one answer a line on stdout: {id, outcomes}. An outcome is
//   "reached"  the server answered with the expected text
//   "timeout"  nothing came, which is how a denied packet must look
//   "refused"  a reset or an ICMP error came: the packet was not dropped silently
//   "error: …" anything else
import { createSocket } from 'node:dgram';
import { connect } from 'node:net';
import { createInterface } from 'node:readline';

const refusals = ['ECONNREFUSED', 'ECONNRESET', 'EHOSTUNREACH', 'ENETUNREACH', 'EACCES', 'EPERM'];
const failureOf = (error) => (refusals.includes(error.code) ? 'refused' : `error: ${error.code ?? error.message}`);
const answerOf = (data, expect) => (data.toString() === expect ? 'reached' : `error: answered ${data.toString()}`);

function probeTcp({ address, port, expect, timeoutMs }) {
  return new Promise((resolve) => {
    const socket = connect({ host: address, port });
    const end = (outcome) => {
      clearTimeout(timer);
      socket.destroy();
      resolve(outcome);
    };
    const timer = setTimeout(() => end('timeout'), timeoutMs);
    socket.on('connect', () => socket.write('probe'));
    socket.on('data', (data) => end(answerOf(data, expect)));
    socket.on('error', (error) => end(failureOf(error)));
    socket.on('end', () => end('error: ended without an answer'));
  });
}

function probeUdp({ address, port, expect, timeoutMs }) {
  return new Promise((resolve) => {
    const socket = createSocket(address.includes(':') ? 'udp6' : 'udp4');
    const end = (outcome) => {
      clearTimeout(timer);
      clearInterval(again);
      socket.close();
      resolve(outcome);
    };
    const timer = setTimeout(() => end('timeout'), timeoutMs);
    socket.on('message', (data) => end(answerOf(data, expect)));
    socket.on('error', (error) => end(failureOf(error)));
    // Connected, so that an ICMP error is an error here and not nothing. Repeated, as TCP repeats its SYN: what is allowed
    // while the probe waits shall not count as denied.
    const send = () => socket.send('probe', (error) => error && end(failureOf(error)));
    let again;
    socket.connect(port, address, () => {
      send();
      again = setInterval(send, 250);
    });
  });
}

createInterface({ input: process.stdin })
  .on('line', async (line) => {
    const { id, probes } = JSON.parse(line);
    const outcomes = await Promise.all(
      probes.map((probe) => (probe.protocol === 'UDP' ? probeUdp(probe) : probeTcp(probe))),
    );
    process.stdout.write(`${JSON.stringify({ id, outcomes })}\n`);
  })
  .on('close', () => process.exit(0));
