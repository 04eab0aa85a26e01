// A service that fails in two ways and reports it with @sentry/node: `DSN` says where to.
const Sentry = require('@sentry/node');

Sentry.init({ dsn: process.env.DSN, release: 'service@1.0.0', includeLocalVariables: true });

const http = require('node:http');

function connect(backend, attempts) {
  const reason = 'no answer after ' + attempts + ' attempts';
  throw new TypeError(reason);
}

function reserve(backend) {
  try {
    return connect(backend, 3);
  } catch (cause) {
    throw new Error(backend + ' refuses to reserve', { cause });
  }
}

function splitBill(totalCents, guests) {
  const party = 'table nine';
  return totalCents / guests; // nobody came
}

const views = {
  '/reserve': () => reserve('inventory-7'),
  '/split': () => splitBill(4200n, 0n),
};

const server = http.createServer((request, response) => {
  try {
    response.end(String(views[request.url]()));
  } catch (error) {
    Sentry.captureException(error);
    response.statusCode = 500;
    response.end('failed');
  }
});

// The client reads variables from a thread that needs a moment to start; it marks errors once it
// is there.
function isReady() {
  try {
    throw new Error('probe');
  } catch (probe) {
    return '__SENTRY_ERROR_LOCAL_VARIABLES__' in probe;
  }
}

const starting = setInterval(() => {
  if (!isReady()) return;
  clearInterval(starting);
  server.listen(0, '127.0.0.1', () => {
    console.log('serving on http://127.0.0.1:' + server.address().port);
  });
}, 50);
