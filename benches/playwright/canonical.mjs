// The canonical task in Playwright, written as its documentation teaches: fresh context, load an article, DOM and PNG,
// fill author, e-mail and text, submit, wait for the new page, check that the comment is there, DOM and PNG, close.
// Prints one line of JSON: {"tasks":…,"seconds":…,"tasks_per_minute":…,…}.

import { existsSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { parseArgs } from 'node:util';

const { chromium } = createRequire(import.meta.url)(process.env.PLAYWRIGHT_CORE);

const { values: options } = parseArgs({
  options: {
    url: { type: 'string' },
    tasks: { type: 'string', default: '20' },
    concurrency: { type: 'string', default: '1' },
    browser: { type: 'string' },
    label: { type: 'string', default: 'playwright' },
  },
});
if (!options.url) {
  console.error('say which article to comment on: --url http://127.0.0.1:PORT/articles/…');
  process.exit(2);
}
const tasks = Number(options.tasks);
const concurrency = Number(options.concurrency);

function findBrowser() {
  const found = ['/usr/bin/chromium-headless-shell', '/usr/bin/chromium'].find((path) => existsSync(path));
  if (!found) throw new Error('no browser found; on Debian: apt-get install chromium-headless-shell');
  return found;
}

// Playwright has no way to drop privileges, so as root it has to give the sandbox up; we keep ours.
const browser = await chromium.launch({
  executablePath: options.browser ?? findBrowser(),
  chromiumSandbox: process.getuid() !== 0,
});

async function task(number) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 } });
  try {
    const page = await context.newPage();
    await page.goto(options.url);
    let evidence = (await page.content()).length + (await page.screenshot()).length;
    const text = `${options.label} says: comment number ${number} of this run, ${process.pid}.`;
    await page.locator('#author').fill('Bench Mark');
    await page.locator('#email').fill(`${options.label}-${process.pid}-${number}@example.org`);
    await page.locator('#comment').fill(text);
    await Promise.all([page.waitForURL(/#comment-\d+$/), page.locator('#submit').click()]);
    await page.locator('.comment-content', { hasText: text }).waitFor();
    evidence += (await page.content()).length + (await page.screenshot()).length;
    return evidence;
  } finally {
    await context.close();
  }
}

// One task outside the measure, so that neither side pays for a cold browser.
await task('warm-up');

let next = 0;
const before = process.cpuUsage();
const started = performance.now();
await Promise.all(
  Array.from({ length: concurrency }, async () => {
    while (next < tasks) await task(++next);
  }),
);
const seconds = (performance.now() - started) / 1000;
const cpu = process.cpuUsage(before);
await browser.close();

const status = readFileSync('/proc/self/status', 'utf8');
console.log(
  JSON.stringify({
    tasks,
    concurrency,
    seconds: Number(seconds.toFixed(3)),
    tasks_per_minute: Number(((60 * tasks) / seconds).toFixed(1)),
    cpu_seconds_per_task: Number(((cpu.user + cpu.system) / 1e6 / tasks).toFixed(4)),
    peak_rss_bytes: Number(/VmHWM:\s+(\d+)/.exec(status)?.[1] ?? 0) * 1024,
  }),
);
