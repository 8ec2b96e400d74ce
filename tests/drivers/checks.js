// What the Node.js programs share: they run their checks in order, and say how each went.
"use strict";
const assert = require("node:assert");
const crypto = require("node:crypto");
const fs = require("node:fs");

const LARGE = 8 * 1024 * 1024;
// Longest wait for a notification, in milliseconds.
const PATIENCE = 10_000;

// A name that no other run has.
const unique = (driver) => `drv_${driver}_${crypto.randomBytes(4).toString("hex")}`;

// libpq's variables, as options of node-postgres and its like; these know no PGSSLROOTCERT.
const tls = () => {
  const root = process.env.PGSSLROOTCERT;
  return root ? { ca: fs.readFileSync(root, "utf8") } : false;
};

// What is wrong, and what every driver must be told of it.
const mistakes = (table) => [
  ["SELECT 1/0", "22012"],
  ["SELECT nothing", "42703"],
  ["SELEKT", "42601"],
  [`INSERT INTO ${table} VALUES (1, 'again')`, "23505"],
];

// Collects what is heard.
class Ear {
  heard = [];
  #waiting = () => {};

  hear(payload) {
    this.heard.push(payload);
    this.#waiting();
  }

  async until(last) {
    await new Promise((resolve, reject) => {
      const late = () => reject(new Error(`${last} did not come: ${this.heard}`));
      const timer = setTimeout(late, PATIENCE);
      this.#waiting = () => {
        if (!this.heard.includes(last)) return;
        clearTimeout(timer);
        resolve();
      };
      this.#waiting();
    });
  }

  // What the check of notifications sends: nothing is missing, and nothing came twice.
  heardAll() {
    const busy = Array.from({ length: 20 }, (_, number) => `busy ${number}`);
    assert.deepStrictEqual(this.heard, ["idle", "own", ...busy, "end"]);
  }
}

// Runs [title, function] pairs by `call`; ends the process.
const run = async (driver, checks, call) => {
  let failed = 0;
  for (const [title, check] of checks) {
    try {
      await call(check);
      console.log(`PASS ${driver}: ${title}`);
    } catch (error) {
      failed += 1;
      const why = `${error.code ?? ""} ${error.message}`.replaceAll("\n", " ");
      console.log(`FAIL ${driver}: ${title}: ${why}`);
    }
  }
  process.exit(failed ? 1 : 0);
};

module.exports = { LARGE, Ear, mistakes, run, tls, unique };
