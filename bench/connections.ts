/** New TCP connections, one end in each namespace: `server PORT` or `client HOST PORT SECONDS`, which prints connections/s. */
import { connect, createServer } from 'node:net';

const [role = '', ...args] = process.argv.slice(2);
const concurrency = 16;

if (role === 'server') serve(Number(args[0]));
else measure(args[0] ?? '', Number(args[1]), Number(args[2]));

function serve(port: number): void {
  createServer((socket) => socket.on('error', () => undefined).resume()).listen(port, '0.0.0.0', 1024, () =>
    process.stdout.write('ready\n'),
  );
}

/** Each connection is made and reset: a reset leaves no TIME_WAIT, so that ports do not run out. */
function measure(host: string, port: number, seconds: number): void {
  const startedMs = performance.now();
  const endMs = startedMs + seconds * 1000;
  let made = 0;
  let open = 0;
  const next = (): void => {
    if (performance.now() >= endMs) {
      if (open === 0) process.stdout.write(`${made / ((performance.now() - startedMs) / 1000)}\n`);
      return;
    }
    open++;
    const socket = connect({ host, port, noDelay: true });
    socket.once('connect', () => {
      made++;
      socket.resetAndDestroy();
    });
    socket.on('error', (error) => {
      process.stderr.write(`connect: ${error.message}\n`);
      process.exit(1);
    });
    socket.once('close', () => {
      open--;
      next();
    });
  };
  for (let i = 0; i < concurrency; i++) next();
}
