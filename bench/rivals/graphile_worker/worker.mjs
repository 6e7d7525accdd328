// graphile-worker: `migrate` makes the schema, `work` runs one worker process.
import { createInterface } from "node:readline";
import pg from "pg";
import { run, runMigrations, WorkerPreset } from "graphile-worker";

const config = JSON.parse(process.argv[2]);
const pgPool = new pg.Pool({
  connectionString: config.url,
  max: config.settings.maxPoolSize ?? 10,
});

let handled = 0;
const update = {
  name: "update-state",
  text: "UPDATE state SET total = total + $1 WHERE key = $2",
};
const handlers = {
  noop: async () => {
    handled++;
  },
  update: async (payload, helpers) => {
    handled++;
    await helpers.withPgClient((client) =>
      client.query({ ...update, values: [payload.n, payload.key] }),
    );
  },
  sleep: async () => {
    handled++;
    await new Promise((done) => setTimeout(done, 10));
  },
};

if (config.mode === "migrate") {
  await runMigrations({ pgPool });
  await pgPool.end();
} else {
  await pgPool.query("SELECT 1");
  const input = createInterface({ input: process.stdin });
  let runner;
  input.on("line", async () => {
    runner = await run({
      pgPool,
      noHandleSignals: true,
      parsedCronItems: [],
      taskList: { bench: handlers[config.handler] },
      preset: { extends: [WorkerPreset], worker: config.settings },
    });
  });
  input.on("close", async () => {
    await runner?.stop();
    process.stdout.write(`${handled}\n`, () => process.exit(0));
  });
  process.stdout.write("ready\n");
}
