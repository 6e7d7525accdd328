// pg-boss: `preload` makes schema and queue and sends, `work` runs one worker process.
import { createInterface } from "node:readline";
import pg from "pg";
import { PgBoss } from "pg-boss";

const config = JSON.parse(process.argv[2]);
const { poolSize = 10, boss: constructor = {}, ...options } = config.settings;
const boss = new PgBoss({ connectionString: config.url, max: poolSize, ...constructor });
boss.on("error", (error) => console.error(error));

let handled = 0;
const state = new pg.Pool({ connectionString: config.url, max: poolSize });
const updateOne = "UPDATE state SET total = total + $1 WHERE key = $2";
const updateMany = `UPDATE state SET total = total + sent.n
  FROM (SELECT key, sum(n) AS n FROM unnest($1::text[], $2::bigint[]) AS sent(key, n)
        GROUP BY key) sent
  WHERE state.key = sent.key`;
const handlers = {
  noop: async () => {},
  // A batch is updated by one statement.
  update: async (jobs) => {
    if (jobs.length === 1) {
      const { n, key } = jobs[0].data;
      await state.query({ name: "one", text: updateOne, values: [n, key] });
    } else {
      const keys = jobs.map((job) => job.data.key);
      const numbers = jobs.map((job) => job.data.n);
      await state.query({ name: "many", text: updateMany, values: [keys, numbers] });
    }
  },
  // The jobs of a batch sleep at the same time.
  sleep: async (jobs) => {
    await Promise.all(jobs.map(() => new Promise((done) => setTimeout(done, 10))));
  },
};

await boss.start();
if (config.mode === "preload") {
  await boss.createQueue("bench", { policy: config.policy });
  for (let first = 1; first <= config.messages; first += 10_000) {
    const jobs = [];
    for (let i = first; i < first + 10_000 && i <= config.messages; i++) {
      const key = String(i % config.keys);
      jobs.push({
        data: { key, n: (i % 7) + 1 },
        ...(config.policy === "key_strict_fifo" ? { singletonKey: key } : {}),
      });
    }
    await boss.insert("bench", jobs);
  }
  await state.end();
  await boss.stop();
} else {
  await state.query("SELECT 1");
  if (constructor.queueCacheIntervalSeconds) {
    // The statistics are there before the clock starts.
    await boss.supervise("bench");
    await new Promise((done) => setTimeout(done, 1200));
  }
  const input = createInterface({ input: process.stdin });
  input.on("line", async () => {
    await boss.work("bench", options, async (jobs) => {
      handled += jobs.length;
      await handlers[config.handler](jobs);
    });
  });
  input.on("close", async () => {
    await boss.stop({ graceful: true, timeout: 3000 });
    process.stdout.write(`${handled}\n`, () => process.exit(0));
  });
  process.stdout.write("ready\n");
}
