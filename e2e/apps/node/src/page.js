// A page that fails in two ways and reports it with @sentry/browser. It is built with esbuild, so
// that it arrives minified, as pages do.
import * as Sentry from '@sentry/browser';

const answers = [];
window.shop = { answers };

Sentry.init({ dsn: window.DSN, release: 'page@1.0.0' });
Sentry.getClient().on('afterSendEvent', (event, answer) => {
  answers.push({ id: event.event_id, status: answer && answer.statusCode });
});

function askInventory(backend) {
  throw new TypeError(backend + ' has no such table');
}

function reserve(backend) {
  try {
    askInventory(backend);
  } catch (cause) {
    throw new Error(backend + ' refuses to reserve', { cause });
  }
}

function splitBill(totalCents, guests) {
  return totalCents / guests; // nobody came
}

document.querySelector('#reserve').addEventListener('click', () => reserve('inventory-7'));
document.querySelector('#split').addEventListener('click', () => {
  document.title = String(splitBill(4200n, BigInt(document.images.length)));
});
window.shop.ready = true;
