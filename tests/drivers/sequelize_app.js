// A small application on Sequelize: migrations up and down, associations, transactions.
"use strict";
const assert = require("node:assert");
const { DataTypes, Sequelize, Transaction, UniqueConstraintError } = require("sequelize");
const { SequelizeStorage, Umzug } = require("umzug");
const { run, tls, unique } = require("./checks.js");

const driver = `sequelize ${require("./package.json").dependencies.sequelize}`;
// Each run has a schema of its own.
const schema = unique("sequelize");
const checks = [];
const check = (title, body) => checks.push([title, body]);
const at = (tableName) => ({ schema, tableName });

const options = {
  dialect: "postgres",
  host: process.env.PGHOST,
  port: Number(process.env.PGPORT),
  username: process.env.PGUSER,
  password: process.env.PGPASSWORD,
  database: process.env.PGDATABASE,
  dialectOptions: { ssl: tls() },
  logging: false,
};
// One session sees what it wrote. Of the sessions of a larger pool one need not see at once, on a
// standby, what another wrote.
const sequelize = new Sequelize({ ...options, pool: { max: 1 } });

const authorColumns = {
  name: { type: DataTypes.STRING, allowNull: false, unique: true },
  born: DataTypes.DATEONLY,
};
const Author = sequelize.define("author", authorColumns, { schema });
const Book = sequelize.define(
  "book",
  { title: DataTypes.TEXT, tags: DataTypes.ARRAY(DataTypes.TEXT), about: DataTypes.JSONB },
  { schema },
);
Author.hasMany(Book);
Book.belongsTo(Author);

const times = { createdAt: DataTypes.DATE, updatedAt: DataTypes.DATE };
const id = { type: DataTypes.INTEGER, primaryKey: true, autoIncrement: true };
const author = { type: DataTypes.INTEGER, references: { model: at("authors"), key: "id" } };
const migrations = [
  {
    name: "1-authors",
    up: ({ context }) =>
      context.createTable(at("authors"), {
        id,
        name: { type: DataTypes.STRING, allowNull: false, unique: true },
        ...times,
      }),
    down: ({ context }) => context.dropTable(at("authors")),
  },
  {
    name: "2-books",
    up: async ({ context }) => {
      await context.createTable(at("books"), {
        id,
        title: DataTypes.TEXT,
        tags: DataTypes.ARRAY(DataTypes.TEXT),
        about: DataTypes.JSONB,
        authorId: author,
        ...times,
      });
      await context.addIndex(at("books"), ["title"]);
    },
    down: ({ context }) => context.dropTable(at("books")),
  },
  {
    name: "3-born",
    up: ({ context }) => context.addColumn(at("authors"), "born", DataTypes.DATEONLY),
    down: ({ context }) => context.removeColumn(at("authors"), "born"),
  },
];
const umzug = new Umzug({
  migrations,
  context: sequelize.getQueryInterface(),
  storage: new SequelizeStorage({ sequelize, schema, tableName: "migrations" }),
  logger: undefined,
});

check("migrations", async () => {
  await sequelize.createSchema(schema);
  assert.strictEqual((await umzug.up()).length, 3);
  assert.strictEqual((await umzug.down()).length, 1);
  assert.deepStrictEqual((await umzug.pending()).map(({ name }) => name), ["3-born"]);
  assert.strictEqual((await umzug.up()).length, 1);
  const columns = await sequelize.getQueryInterface().describeTable(at("authors"));
  assert.ok(columns.born, Object.keys(columns));
});

check("an application", async () => {
  const ada = await Author.create({ name: "Ada", born: "1815-12-10" });
  await ada.createBook({ title: "Notes", tags: ["engine", "note g"], about: { pages: 66 } });
  await Book.bulkCreate(
    Array.from({ length: 200 }, (_, n) => ({ title: `Volume ${n}`, authorId: ada.id })),
  );
  const found = await Author.findOne({ where: { name: "Ada" }, include: Book });
  assert.strictEqual(found.books.length, 201);
  const thick = await Book.findAll({ where: { about: { pages: 66 } } });
  assert.deepStrictEqual(thick.map((book) => book.tags), [["engine", "note g"]]);
  await ada.update({ name: "Ada Lovelace" });
  assert.strictEqual((await Author.findByPk(ada.id)).name, "Ada Lovelace");
  const [, created] = await Author.findOrCreate({ where: { name: "Grace" } });
  assert.ok(created);
  assert.strictEqual(await Book.destroy({ where: { authorId: ada.id } }), 201);
  assert.strictEqual(await Book.count(), 0);
});

check("own writes", async () => {
  for (let number = 0; number < 50; number++) {
    const { id } = await Author.create({ name: `own ${number}` });
    assert.ok(await Author.findByPk(id), `write ${number} was not seen`);
  }
});

check("transactions", async () => {
  const undone = sequelize.transaction(async (transaction) => {
    await Author.create({ name: "undone" }, { transaction });
    throw new Error("changed my mind");
  });
  await assert.rejects(undone, /changed my mind/);
  assert.strictEqual(await Author.count({ where: { name: "undone" } }), 0);
  const isolationLevel = Transaction.ISOLATION_LEVELS.SERIALIZABLE;
  const level = await sequelize.transaction({ isolationLevel }, async (transaction) => {
    const [rows] = await sequelize.query("SELECT current_setting('transaction_isolation') AS x", { transaction });
    return rows[0].x;
  });
  assert.strictEqual(level, "serializable");
});

check("errors", async () => {
  await assert.rejects(Author.create({ name: "Ada Lovelace" }), UniqueConstraintError);
  const wrong = sequelize.query("SELECT 1/0");
  await assert.rejects(wrong, (error) => error.original.code === "22012");
  assert.ok((await Author.count()) > 0);
});

check("many at once", async () => {
  const crowd = new Sequelize({ ...options, pool: { max: 10 } });
  const Crowded = crowd.define("author", authorColumns, { schema });
  const names = Array.from({ length: 100 }, (_, number) => `crowd ${number}`);
  await Promise.all(names.map((name) => Crowded.create({ name })));
  const where = { name: names };
  await crowd.transaction(async (transaction) => {
    await Crowded.update({ born: "2000-01-01" }, { where, transaction });
    assert.strictEqual(await Crowded.count({ where, transaction }), 100);
  });
  await crowd.close();
});

check("tidying up", async () => {
  assert.strictEqual((await umzug.down({ to: 0 })).length, 3);
  await sequelize.query(`DROP SCHEMA ${schema} CASCADE`);
  await sequelize.close();
});

run(driver, checks, (body) => body());
