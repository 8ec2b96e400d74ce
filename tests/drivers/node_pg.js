// node-postgres through pgsteer. Usage: node_pg.js URI
"use strict";
const assert = require("node:assert");
const crypto = require("node:crypto");
const { pipeline } = require("node:stream/promises");
const { Readable } = require("node:stream");
const pg = require("pg");
const copy = require("pg-copy-streams");

const uri = process.argv[2];
const table = `drv_node_${crypto.randomBytes(4).toString("hex")}`;
const version = require("pg/package.json").version;
const checks = [];
const check = (name, run) => checks.push({ name, run });

check("simple statements", async (client) => {
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
  for (let number = 0; number < 10; number++) {
    await client.query({
      name: "put",
      text: `INSERT INTO ${table} VALUES ($1, $2)`,
      values: [100 + number, "p"],
    });
    // The write is this session's own, so the read must see it, wherever it goes.
    const seen = await client.query({
      name: "seen",
      text: `SELECT count(*)::int AS n FROM ${table} WHERE id >= $1`,
      values: [100],
    });
    assert.strictEqual(seen.rows[0].n, number + 1);
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

check("copy both ways", async (client) => {
  const lines = Array.from({ length: 5000 }, (_, n) => `${1000 + n}\t${"c".repeat(100)}\n`);
  await pipeline(Readable.from(lines), client.query(copy.from(`COPY ${table} FROM STDIN`)));
  let received = "";
  const out = client.query(copy.to(`COPY (SELECT * FROM ${table} WHERE id >= 1000) TO STDOUT`));
  for await (const chunk of out) received += chunk.toString();
  assert.strictEqual(received.split("\n").length - 1, 5000);
});

check("cancel by another session", async (client) => {
  // node-postgres sends no cancel requests; its users end a statement by its process id, which
  // is asked for on the same server in one transaction.
  await client.query("BEGIN");
  const pid = (await client.query("SELECT pg_backend_pid() AS pid, txid_current()")).rows[0].pid;
  const refused = assert.rejects(client.query("SELECT pg_sleep(30)"), { code: "57014" });
  const other = new pg.Client(uri);
  await other.connect();
  await new Promise((resolve) => setTimeout(resolve, 300));
  await other.query("/* pgsteer: role=primary */ SELECT pg_cancel_backend($1)", [pid]);
  await refused;
  await client.query("ROLLBACK");
  assert.strictEqual((await client.query("SELECT 1 AS x")).rows[0].x, 1);
  await other.end();
});

check("listen and notify", async (client) => {
  const heard = new Promise((resolve, reject) => {
    client.once("notification", (message) => resolve(message.payload));
    setTimeout(() => reject(new Error("nothing was heard for 10 s")), 10_000).unref();
  });
  await client.query(`LISTEN ${table}`);
  const other = new pg.Client(uri);
  await other.connect();
  await other.query(`NOTIFY ${table}, 'hello'`);
  assert.strictEqual(await heard, "hello");
  await other.end();
});

check("errors with sqlstate", async (client) => {
  const cases = [
    ["SELECT 1/0", "22012"],
    ["SELECT nothing", "42703"],
    ["SELEKT", "42601"],
    [`INSERT INTO ${table} VALUES (1, 'again')`, "23505"],
  ];
  for (const [sql, code] of cases) await assert.rejects(client.query(sql), { code }, sql);
  assert.strictEqual((await client.query("SELECT 1 AS x")).rows[0].x, 1);
});

check("large rows", async (client) => {
  const size = 20 * 1024 * 1024;
  const row = (await client.query("SELECT repeat('x', $1) AS x", [size])).rows[0];
  assert.strictEqual(row.x.length, size);
  const echoed = await client.query("SELECT length($1::text) AS n", ["y".repeat(size)]);
  assert.strictEqual(echoed.rows[0].n, size);
});

check("a pool", async () => {
  const pool = new pg.Pool({ connectionString: uri, max: 20 });
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

async function main() {
  let failed = 0;
  for (const { name, run } of checks) {
    const client = new pg.Client(uri);
    // Without a listener an error between two statements would end the process.
    client.on("error", () => {});
    try {
      await client.connect();
      await run(client);
      console.log(`node-postgres ${version}: ${name}: ok`);
    } catch (error) {
      failed += 1;
      console.log(`node-postgres ${version}: ${name}: FAILED: ${error.code ?? ""} ${error.message}`);
    }
    await client.end().catch(() => {});
  }
  const client = new pg.Client(uri);
  await client.connect();
  await client.query(`DROP TABLE IF EXISTS ${table}`);
  await client.end();
  return failed ? 1 : 0;
}

main().then(
  (code) => process.exit(code),
  (error) => {
    console.log(`node-postgres ${version}: FAILED: ${error.stack}`);
    process.exit(1);
  },
);
