// postgres.js through pgsteer; where to is in PGHOST and its like.
"use strict";
const assert = require("node:assert");
const { pipeline } = require("node:stream/promises");
const { Readable } = require("node:stream");
const postgres = require("postgres");
const { LARGE, Ear, mistakes, run, tls, unique } = require("./checks.js");

const driver = `postgres.js ${require("./package.json").dependencies.postgres}`;
const table = unique("postgresjs");
const checks = [];
const check = (title, body) => checks.push([title, body]);

// A pool of this size; it prepares every statement and pipelines by itself.
const pool = (max) => postgres({ ssl: tls(), max, onnotice: () => {} });

check("statements", async (sql) => {
  await sql`CREATE TABLE ${sql(table)} (id int PRIMARY KEY, note text)`;
  const inserted = await sql`INSERT INTO ${sql(table)} VALUES (1, 'a')`;
  assert.strictEqual(inserted.count, 1);
  assert.deepStrictEqual([...(await sql`SELECT note FROM ${sql(table)}`)], [{ note: "a" }]);
  const both = await sql`SELECT 1 AS x; SELECT 2 AS x`.simple();
  assert.deepStrictEqual(both.map((rows) => rows[0].x), [1, 2]);
});

check("prepared statements", async (sql) => {
  for (let number = 0; number < 20; number++) {
    assert.strictEqual((await sql`SELECT ${number}::int + 1 AS x`)[0].x, number + 1);
  }
  // Without waiting: they go in one pipeline.
  const numbers = Array.from({ length: 100 }, (_, number) => number);
  const rows = await Promise.all(numbers.map((number) => sql`SELECT ${number}::int AS x`));
  assert.deepStrictEqual(rows.map((row) => row[0].x), numbers);
});

check("own writes", async (sql) => {
  for (let number = 0; number < 50; number++) {
    await sql`INSERT INTO drv_own_writes VALUES (${table}, ${number})`;
    for (let time = 0; time < 3; time++) {
      const seen = await sql`SELECT count(*)::int AS n FROM drv_own_writes WHERE run = ${table}`;
      assert.strictEqual(seen[0].n, number + 1);
    }
  }
});

check("transactions", async (sql) => {
  await sql.begin(async (sql) => {
    await sql`INSERT INTO ${sql(table)} VALUES (2, 'kept')`;
    const twice = sql.savepoint((sql) => sql`INSERT INTO ${sql(table)} VALUES (2, 'twice')`);
    await assert.rejects(twice, { code: "23505" });
  });
  const undone = sql.begin(async (sql) => {
    await sql`INSERT INTO ${sql(table)} VALUES (4, 'undone')`;
    throw new Error("changed my mind");
  });
  await assert.rejects(undone, /changed my mind/);
  const rows = await sql`SELECT id FROM ${sql(table)} WHERE id IN (2, 4)`;
  assert.deepStrictEqual([...rows], [{ id: 2 }]);
  const refused = sql.begin("READ ONLY", (sql) => sql`DELETE FROM ${sql(table)}`);
  await assert.rejects(refused, { code: "25006" });
});

check("copy", async (sql) => {
  const lines = Array.from({ length: 5000 }, (_, n) => `${1000 + n}\t${"c".repeat(100)}\n`);
  const into = await sql`COPY ${sql(table)} FROM STDIN`.writable();
  await pipeline(Readable.from(lines), into);
  let received = "";
  const out = await sql`COPY (SELECT * FROM ${sql(table)} WHERE id >= 1000) TO STDOUT`.readable();
  for await (const chunk of out) received += chunk.toString();
  assert.strictEqual(received.split("\n").length - 1, 5000);
});

check("cursors", async (sql) => {
  let total = 0;
  await sql`SELECT generate_series(1, 1000) AS n`.cursor(100, (rows) => {
    for (const row of rows) total += row.n;
  });
  assert.strictEqual(total, 500500);
});

check("cancel", async (sql) => {
  const start = Date.now();
  const query = sql`SELECT pg_sleep(30)`;
  setTimeout(() => query.cancel(), 300);
  await assert.rejects(query, { code: "57014" });
  assert.ok(Date.now() - start < 10_000, "it was cancelled late");
  for (let number = 0; number < 50; number++) {
    assert.strictEqual((await sql`SELECT 1 AS x`)[0].x, 1);
  }
});

check("notifications", async (sql) => {
  // It listens on a connection of its own, which does nothing else.
  const ear = new Ear();
  const { unlisten } = await sql.listen(table, (payload) => ear.hear(payload));
  await sql.notify(table, "idle");
  await ear.until("idle");
  await sql.notify(table, "own");
  await ear.until("own");
  for (let number = 0; number < 20; number++) {
    await sql.notify(table, `busy ${number}`);
    await sql`SELECT count(*) FROM ${sql(table)}`;
    await sql`UPDATE ${sql(table)} SET note = note WHERE id = 1`;
  }
  await sql.notify(table, "end");
  await ear.until("end");
  ear.heardAll();
  await unlisten();
});

check("errors", async (sql) => {
  for (const [text, code] of mistakes(table)) {
    await assert.rejects(sql.unsafe(text), { code }, text);
    await assert.rejects(sql.unsafe(text, [], { prepare: true }), { code }, text);
    assert.strictEqual((await sql`SELECT 1 AS x`)[0].x, 1);
  }
});

check("large rows", async (sql) => {
  assert.strictEqual((await sql`SELECT repeat('x', ${LARGE}::int) AS x`)[0].x.length, LARGE);
  const echoed = await sql`SELECT length(${"y".repeat(LARGE)}::text) AS n`;
  assert.strictEqual(echoed[0].n, LARGE);
});

check("pools", async () => {
  const sql = pool(20);
  const one = async (number) => {
    const own = await sql.reserve();
    try {
      await own`SELECT set_config('application_name', ${`app${number}`}, false)`;
      return (await own`SHOW application_name`)[0].application_name;
    } finally {
      own.release();
    }
  };
  const names = await Promise.all(Array.from({ length: 100 }, (_, number) => one(number)));
  names.forEach((name, number) => assert.strictEqual(name, `app${number}`));
  await sql.end();
});

check("tidying up", async (sql) => {
  await sql`DROP TABLE ${sql(table)}`;
});

run(driver, checks, async (body) => {
  const sql = pool(1);
  try {
    await body(sql);
  } finally {
    await sql.end({ timeout: 5 });
  }
});
