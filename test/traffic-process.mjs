/**
 * Traffic with numbers, in a process of its own inside a network namespace. Plain JavaScript, so that it starts at once.
 *
 *   echo HOST PORT           answers UDP, and TCP on the same port
 *   udp-ask HOST PORT        keeps 4 numbered questions in flight, each given up after 2 s
 *   udp-fire HOST PORT       sends a number each millisecond, waits for nothing
 *   tcp-stream HOST PORT     writes 500 bytes each millisecond, counts the bytes that come back
 *
 * In the small VM (SLUICE_VM=1) each is ten times slower: its one emulated CPU would have no time left for the agent.
 *
 * Prints "ready" when traffic may be expected, and on SIGTERM one line of JSON: { sent, answered, lost, errors }.
 */
import dgram from 'node:dgram';
import net from 'node:net';
import process from 'node:process';

const [mode, host, portText] = process.argv.slice(2);
const port = Number(portText);
const family = net.isIPv6(host) ? 'udp6' : 'udp4';
const emulated = process.env.SLUICE_VM === '1';
const periodMs = emulated ? 10 : 1;
const answerMs = emulated ? 30_000 : 2_000;
const count = { sent: 0, answered: 0, lost: 0, errors: 0 };

/** What is to happen on SIGTERM before the count is told. */
let finish = tell;
process.on('SIGTERM', () => finish());
process.stdin.on('end', () => process.exit(1)).resume();

function ready() {
  process.stdout.write('ready\n');
}

function tell() {
  process.stdout.write(`${JSON.stringify(count)}\n`, () => process.exit(0));
}

function echo() {
  const socket = dgram.createSocket(family);
  socket.on('message', (message, peer) => socket.send(message, peer.port, peer.address, () => undefined));
  const server = net.createServer((connection) => connection.on('error', () => undefined).pipe(connection));
  socket.bind(port, host, () => server.listen(port, host, ready));
}

/** Four questions in flight; at the end each is answered or lost. */
function udpAsk() {
  const socket = dgram.createSocket(family);
  const pending = new Map();
  let ended = false;
  const ask = () => {
    if (ended) return pending.size === 0 ? tell() : undefined;
    const number = count.sent++;
    pending.set(
      number,
      setTimeout(() => {
        pending.delete(number);
        count.lost++;
        ask();
      }, answerMs),
    );
    socket.send(String(number), port, host, (error) => (count.errors += error ? 1 : 0));
  };
  socket.on('message', (message) => {
    const number = Number(message.toString());
    clearTimeout(pending.get(number));
    if (!pending.delete(number)) return;
    if (++count.answered === 1) ready();
    if (emulated) setTimeout(ask, periodMs);
    else setImmediate(ask);
  });
  finish = () => {
    ended = true;
    if (pending.size === 0) tell();
  };
  for (let i = 0; i < 4; i++) ask();
}

function udpFire() {
  const socket = dgram.createSocket(family);
  socket.on('error', () => count.errors++);
  setInterval(() => {
    socket.send(String(count.sent++), port, host, (error) => (count.errors += error ? 1 : 0));
    if (count.sent === 1) ready();
  }, periodMs);
}

function tcpStream() {
  const socket = net.connect({ host, port, noDelay: true });
  socket.on('error', () => count.errors++);
  socket.on('data', (chunk) => {
    if (count.answered === 0) ready();
    count.answered += chunk.length;
  });
  socket.on('connect', () =>
    setInterval(() => {
      count.sent += 500;
      socket.write(Buffer.alloc(500, 1));
    }, periodMs),
  );
}

const run = { echo, 'udp-ask': udpAsk, 'udp-fire': udpFire, 'tcp-stream': tcpStream }[mode];
run();
