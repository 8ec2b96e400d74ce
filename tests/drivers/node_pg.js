// node-postgres through pgsteer; where to is in PGHOST and its like.
"use strict";
const assert = require("node:assert");
const { pipeline } = require("node:stream/promises");
const { Readable } = require("node:stream");
const pg = require("pg");
const copy = require("pg-copy-streams");
const { LARGE, Ear, mistakes, run, tls, unique } = require("./checks.js");

const driver = `node-postgres ${require("./package.json").dependencies.pg}`;
const table = unique("node");
const options = { ssl: tls() };
const checks = [];
const check = (title, body) => checks.push([title, body]);

const entered = async () => {
  const client = new pg.Client(options);
  // Without a listener an error between two statements would end the process.
  client.on("error", () => {});
  await client.connect();
  return client;
};

check("statements", async (client) => {
  await client.query(`CREATE TABLE ${table} (id int PRIMARY KEY, note text)`);
  const inserted = await client.query(`INSERT INTO ${table} VALUES (1, 'a')`);
  assert.strictEqual(inserted.rowCount, 1);
  const read = await client.query(`SELECT note FROM ${table}`);
  assert.deepStrictEqual(read.rows, [{ note: "a" }]);
  const both = await client.query("SELECT 1 AS x; SELECT 2 AS x");
  assert.deepStrictEqual(both.map((result) => result.rows[0].x), [1, 2]);
});

check("prepared statements", async (client) => {
  for (let number = 0; number < 20; number++) {
    const query = { name: "plus", text: "SELECT $1::int + 1 AS x", values: [number] };
    assert.strictEqual((await client.query(query)).rows[0].x, number + 1);
  }
});

check("own writes", async (client) => {
  for (let number = 0; number < 50; number++) {
    const put = "INSERT INTO drv_own_writes VALUES ($1, $2)";
    await client.query({ name: "put", text: put, values: [table, number] });
    for (let time = 0; time < 3; time++) {
      const seen = "SELECT count(*)::int AS n FROM drv_own_writes WHERE run = $1";
      const result = await client.query({ name: "seen", text: seen, values: [table] });
      assert.strictEqual(result.rows[0].n, number + 1);
    }
  }
});

check("transactions", async (client) => {
  await client.query("BEGIN");
  await client.query(`INSERT INTO ${table} VALUES (2, 'kept')`);
  await client.query("SAVEPOINT s");
  await assert.rejects(client.query(`INSERT INTO ${table} VALUES (2, 'twice')`), { code: "23505" });
  await client.query("ROLLBACK TO s");
  await client.query("COMMIT");
  await client.query("BEGIN");
  await client.query(`INSERT INTO ${table} VALUES (4, 'undone')`);
  await client.query("ROLLBACK");
  const rows = (await client.query(`SELECT id FROM ${table} WHERE id IN (2, 4)`)).rows;
  assert.deepStrictEqual(rows, [{ id: 2 }]);
});

check("copy", async (client) => {
  const lines = Array.from({ length: 5000 }, (_, n) => `${1000 + n}\t${"c".repeat(100)}\n`);
  await pipeline(Readable.from(lines), client.query(copy.from(`COPY ${table} FROM STDIN`)));
  let received = "";
  const out = client.query(copy.to(`COPY (SELECT * FROM ${table} WHERE id >= 1000) TO STDOUT`));
  for await (const chunk of out) received += chunk.toString();
  assert.strictEqual(received.split("\n").length - 1, 5000);
  const bad = client.query(copy.from(`COPY ${table} FROM STDIN`));
  await assert.rejects(pipeline(Readable.from(["not a number\tx\n"]), bad), { code: "22P02" });
  assert.strictEqual((await client.query("SELECT 1 AS x")).rows[0].x, 1);
});

check("cancel", async (client) => {
  const query = new pg.Query("SELECT pg_sleep(30)");
  const cancelled = new Promise((resolve) => query.on("error", resolve));
  const start = Date.now();
  client.query(query);
  await new Promise((resolve) => setTimeout(resolve, 300));
  // node-postgres knows no cancel over TLS: as libpq before 17, it asks in the clear.
  new pg.Client({ ssl: false }).cancel(client, query);
  assert.strictEqual((await cancelled).code, "57014");
  assert.ok(Date.now() - start < 10_000, "it was cancelled late");
  for (let number = 0; number < 50; number++) {
    assert.strictEqual((await client.query("SELECT 1 AS x")).rows[0].x, 1);
  }
});

check("cancel by another session", async (client) => {
  // By its process, which is asked for on the same server in one transaction.
  await client.query("BEGIN");
  const pid = (await client.query("SELECT pg_backend_pid() AS pid, txid_current()")).rows[0].pid;
  const refused = assert.rejects(client.query("SELECT pg_sleep(30)"), { code: "57014" });
  const other = await entered();
  await new Promise((resolve) => setTimeout(resolve, 300));
  await other.query("/* pgsteer: role=primary */ SELECT pg_cancel_backend($1)", [pid]);
  await refused;
  await client.query("ROLLBACK");
  assert.strictEqual((await client.query("SELECT 1 AS x")).rows[0].x, 1);
  await other.end();
});

check("notifications", async (client) => {
  const ear = new Ear();
  client.on("notification", (message) => ear.hear(message.payload));
  await client.query(`LISTEN ${table}`);
  const other = await entered();
  await other.query(`NOTIFY ${table}, 'idle'`);
  await ear.until("idle");
  await client.query(`NOTIFY ${table}, 'own'`);
  await ear.until("own");
  for (let number = 0; number < 20; number++) {
    await other.query(`NOTIFY ${table}, 'busy ${number}'`);
    await client.query(`SELECT count(*) FROM ${table}`);
    await client.query(`UPDATE ${table} SET note = note WHERE id = $1`, [1]);
  }
  await other.query(`NOTIFY ${table}, 'end'`);
  await ear.until("end");
  ear.heardAll();
  await other.end();
});

check("errors", async (client) => {
  for (const [sql, code] of mistakes(table)) {
    await assert.rejects(client.query(sql), { code }, sql);
    await assert.rejects(client.query({ text: sql, values: [], queryMode: "extended" }), { code });
    assert.strictEqual((await client.query("SELECT 1 AS x")).rows[0].x, 1);
  }
});

check("large rows", async (client) => {
  const row = (await client.query("SELECT repeat('x', $1) AS x", [LARGE])).rows[0];
  assert.strictEqual(row.x.length, LARGE);
  const echoed = await client.query("SELECT length($1::text) AS n", ["y".repeat(LARGE)]);
  assert.strictEqual(echoed.rows[0].n, LARGE);
});

check("pools", async () => {
  const pool = new pg.Pool({ ...options, max: 20 });
  const one = async (number) => {
    const client = await pool.connect();
    try {
      await client.query(`SET application_name = 'app${number}'`);
      return (await client.query("SHOW application_name")).rows[0].application_name;
    } finally {
      client.release();
    }
  };
  const names = await Promise.all(Array.from({ length: 100 }, (_, number) => one(number)));
  names.forEach((name, number) => assert.strictEqual(name, `app${number}`));
  await pool.end();
});

check("tidying up", async (client) => {
  await client.query(`DROP TABLE ${table}`);
});

run(driver, checks, async (body) => {
  const client = await entered();
  try {
    await body(client);
  } finally {
    await client.end().catch(() => {});
  }
});
