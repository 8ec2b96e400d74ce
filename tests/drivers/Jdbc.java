// PostgreSQL's JDBC driver through pgsteer; where to is in PGHOST and its like. Run by `java`, which
// compiles it by itself.

import java.io.StringReader;
import java.io.StringWriter;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.UUID;
import javax.sql.XAConnection;
import javax.transaction.xa.XAResource;
import javax.transaction.xa.Xid;
import org.postgresql.PGConnection;
import org.postgresql.PGNotification;
import org.postgresql.PGStatement;
import org.postgresql.util.DriverInfo;
import org.postgresql.xa.PGXADataSource;

final class Jdbc {
    static final int LARGE = 8 * 1024 * 1024;
    /** Longest wait for a notification, in milliseconds. */
    static final int PATIENCE = 10_000;
    static final String TABLE = "drv_jdbc_" + UUID.randomUUID().toString().substring(0, 8);
    static final Map<String, Check> CHECKS = new LinkedHashMap<>();

    interface Check {
        void run(Connection connection) throws Exception;
    }

    static {
        CHECKS.put("statements", Jdbc::statements);
        CHECKS.put("prepared statements", Jdbc::preparedStatements);
        CHECKS.put("changed tables", Jdbc::changedTables);
        CHECKS.put("own writes", Jdbc::ownWrites);
        CHECKS.put("transactions", Jdbc::transactions);
        CHECKS.put("two phases", Jdbc::twoPhases);
        CHECKS.put("batches", Jdbc::batches);
        CHECKS.put("cursors", Jdbc::cursors);
        CHECKS.put("copy", Jdbc::copy);
        CHECKS.put("cancel", Jdbc::cancel);
        CHECKS.put("notifications", Jdbc::notifications);
        CHECKS.put("errors", Jdbc::errors);
        CHECKS.put("large rows", Jdbc::largeRows);
        CHECKS.put("metadata", Jdbc::metadata);
        CHECKS.put("read-only connections", Jdbc::readOnlyConnections);
        CHECKS.put("tidying up", connection -> run(connection, "DROP TABLE " + TABLE));
    }

    public static void main(String[] arguments) {
        String driver = "JDBC " + DriverInfo.DRIVER_VERSION;
        int failed = 0;
        for (Map.Entry<String, Check> check : CHECKS.entrySet()) {
            try (Connection connection = enter(Map.of())) {
                check.getValue().run(connection);
                System.out.println("PASS " + driver + ": " + check.getKey());
            } catch (Exception | AssertionError error) {
                failed++;
                String why = error.toString().replace('\n', ' ');
                System.out.println("FAIL " + driver + ": " + check.getKey() + ": " + why);
            }
        }
        System.exit(failed > 0 ? 1 : 0);
    }

    static void statements(Connection connection) throws SQLException {
        run(connection, "CREATE TABLE " + TABLE + " (id int PRIMARY KEY, note text)");
        try (Statement statement = connection.createStatement()) {
            int inserted = statement.executeUpdate("INSERT INTO " + TABLE + " VALUES (1, 'a')");
            same(inserted, 1);
            statement.execute("SELECT 1; SELECT 2");
            statement.getMoreResults();
            ResultSet second = statement.getResultSet();
            second.next();
            same(second.getInt(1), 2);
        }
        same(ask(connection, "SELECT note FROM " + TABLE), "a");
        try (Connection simple = enter(Map.of("preferQueryMode", "simple"));
                var statement = simple.prepareStatement("SELECT note FROM " + TABLE + " WHERE id = ?")) {
            statement.setInt(1, 1);
            same(first(statement.executeQuery()), "a");
        }
    }

    /** The driver prepares on the server from the fifth time on, and then asks for binary. */
    static void preparedStatements(Connection connection) throws SQLException {
        try (var statement = connection.prepareStatement("SELECT ?::int + 1")) {
            for (int number = 0; number < 20; number++) {
                statement.setInt(1, number);
                same(first(statement.executeQuery()), Integer.toString(number + 1));
            }
            same(statement.unwrap(PGStatement.class).isUseServerPrepare(), true);
        }
        // More texts than its cache holds: it closes the oldest.
        try (Connection small = enter(Map.of("prepareThreshold", "1", "preparedStatementCacheQueries", "3"))) {
            for (int number = 0; number < 60; number++) {
                try (var statement = small.prepareStatement("SELECT ?::int + " + number % 7)) {
                    statement.setInt(1, number);
                    same(first(statement.executeQuery()), Integer.toString(number + number % 7));
                }
            }
        }
    }

    /** It is told that its prepared statement won't do any more, and prepares it again. */
    static void changedTables(Connection connection) throws SQLException {
        String wide = TABLE + "_wide";
        run(connection, "CREATE TABLE " + wide + " (a int)");
        run(connection, "INSERT INTO " + wide + " VALUES (1)");
        try (var statement = connection.prepareStatement("SELECT * FROM " + wide)) {
            for (int time = 0; time < 10; time++) first(statement.executeQuery());
            run(connection, "ALTER TABLE " + wide + " ADD b int");
            try (ResultSet rows = statement.executeQuery()) {
                same(rows.getMetaData().getColumnCount(), 2);
            }
        }
        run(connection, "DROP TABLE " + wide);
    }

    static void ownWrites(Connection connection) throws SQLException {
        try (var put = connection.prepareStatement("INSERT INTO drv_own_writes VALUES (?, ?)");
                var seen = connection.prepareStatement(
                        "SELECT count(*) FROM drv_own_writes WHERE run = ?")) {
            for (int number = 0; number < 50; number++) {
                put.setString(1, TABLE);
                put.setInt(2, number);
                put.executeUpdate();
                for (int time = 0; time < 3; time++) {
                    seen.setString(1, TABLE);
                    same(first(seen.executeQuery()), Integer.toString(number + 1));
                }
            }
        }
    }

    static void transactions(Connection connection) throws SQLException {
        connection.setAutoCommit(false);
        run(connection, "INSERT INTO " + TABLE + " VALUES (2, 'kept')");
        var savepoint = connection.setSavepoint();
        fails(connection, "INSERT INTO " + TABLE + " VALUES (2, 'twice')", "23505");
        connection.rollback(savepoint);
        connection.commit();
        run(connection, "INSERT INTO " + TABLE + " VALUES (4, 'undone')");
        connection.rollback();
        connection.setAutoCommit(true);
        same(ask(connection, "SELECT string_agg(id::text, ' ') FROM " + TABLE + " WHERE id IN (2, 4)"), "2");
        connection.setTransactionIsolation(Connection.TRANSACTION_SERIALIZABLE);
        connection.setAutoCommit(false);
        same(ask(connection, "SHOW transaction_isolation"), "serializable");
        connection.rollback();
        connection.setAutoCommit(true);
    }

    static void twoPhases(Connection connection) throws Exception {
        PGXADataSource source = new PGXADataSource();
        source.setUrl(url());
        source.setUser(System.getenv("PGUSER"));
        source.setPassword(System.getenv("PGPASSWORD"));
        XAConnection both = source.getXAConnection();
        XAResource resource = both.getXAResource();
        Xid xid = new Named(TABLE.getBytes());
        resource.start(xid, XAResource.TMNOFLAGS);
        run(both.getConnection(), "INSERT INTO " + TABLE + " VALUES (5, 'in two phases')");
        resource.end(xid, XAResource.TMSUCCESS);
        resource.prepare(xid);
        resource.commit(xid, false);
        both.close();
        // By another session, which need not see it at once on a standby.
        String seen = "/* pgsteer: role=primary */ SELECT note FROM " + TABLE + " WHERE id = 5";
        same(ask(connection, seen), "in two phases");
    }

    static void batches(Connection connection) throws SQLException {
        for (String rewrite : List.of("false", "true")) {
            try (Connection batching = enter(Map.of("reWriteBatchedInserts", rewrite));
                    var put = batching.prepareStatement("INSERT INTO " + TABLE + " VALUES (?, 'batch')")) {
                int from = rewrite.equals("true") ? 20_000 : 10_000;
                for (int number = 0; number < 1000; number++) {
                    put.setInt(1, from + number);
                    put.addBatch();
                }
                same(put.executeBatch().length, 1000);
            }
        }
        // By another session, which need not see it at once on a standby: so on the primary.
        run(connection, "UPDATE " + TABLE + " SET note = 'batched' WHERE note = 'batch'");
        same(ask(connection, "SELECT count(*) FROM " + TABLE + " WHERE note = 'batched'"), "2000");
    }

    static void cursors(Connection connection) throws SQLException {
        connection.setAutoCommit(false);
        try (Statement statement = connection.createStatement()) {
            statement.setFetchSize(100);
            long total = 0;
            try (ResultSet rows = statement.executeQuery("SELECT generate_series(1, 1000)")) {
                while (rows.next()) total += rows.getInt(1);
            }
            same(total, 500500L);
        }
        connection.commit();
        connection.setAutoCommit(true);
    }

    static void copy(Connection connection) throws Exception {
        var copier = connection.unwrap(PGConnection.class).getCopyAPI();
        StringBuilder lines = new StringBuilder();
        for (int number = 1000; number < 6000; number++) {
            lines.append(number).append('\t').append("c".repeat(100)).append('\n');
        }
        same(copier.copyIn("COPY " + TABLE + " FROM STDIN", new StringReader(lines.toString())), 5000L);
        StringWriter out = new StringWriter();
        String query = "SELECT * FROM " + TABLE + " WHERE id BETWEEN 1000 AND 5999 ORDER BY id";
        copier.copyOut("COPY (" + query + ") TO STDOUT", out);
        same(out.toString().equals(lines.toString()), true);
        try {
            copier.copyIn("COPY " + TABLE + " FROM STDIN", new StringReader("not a number\tx\n"));
            throw new AssertionError("a bad row was taken");
        } catch (SQLException error) {
            same(error.getSQLState(), "22P02");
        }
        same(ask(connection, "SELECT 1"), "1");
    }

    static void cancel(Connection connection) throws Exception {
        try (Statement statement = connection.createStatement()) {
            Thread other = new Thread(() -> {
                try {
                    Thread.sleep(500);
                    statement.cancel();
                } catch (Exception error) {
                    throw new AssertionError(error);
                }
            });
            other.start();
            fails(connection, statement, "SELECT pg_sleep(30)", "57014");
            other.join();
            // The driver's own limit cancels just so.
            statement.setQueryTimeout(1);
            fails(connection, statement, "SELECT pg_sleep(30)", "57014");
        }
        for (int time = 0; time < 50; time++) same(ask(connection, "SELECT 1"), "1");
    }

    static void notifications(Connection connection) throws Exception {
        List<String> heard = new ArrayList<>();
        try (Connection other = enter(Map.of())) {
            run(connection, "LISTEN " + TABLE);
            run(other, "NOTIFY " + TABLE + ", 'idle'");
            until(connection, heard, "idle");
            run(connection, "NOTIFY " + TABLE + ", 'own'");
            until(connection, heard, "own");
            for (int number = 0; number < 20; number++) {
                run(other, "NOTIFY " + TABLE + ", 'busy " + number + "'");
                ask(connection, "SELECT count(*) FROM " + TABLE);
                run(connection, "UPDATE " + TABLE + " SET note = note WHERE id = 1");
            }
            run(other, "NOTIFY " + TABLE + ", 'end'");
            until(connection, heard, "end");
        }
        List<String> expected = new ArrayList<>(List.of("idle", "own"));
        for (int number = 0; number < 20; number++) expected.add("busy " + number);
        expected.add("end");
        same(heard, expected);
    }

    static void until(Connection connection, List<String> heard, String last) throws SQLException {
        long end = System.currentTimeMillis() + PATIENCE;
        while (!heard.contains(last)) {
            if (System.currentTimeMillis() > end) throw new AssertionError(last + " did not come: " + heard);
            for (PGNotification one : connection.unwrap(PGConnection.class).getNotifications(100)) {
                heard.add(one.getParameter());
            }
        }
    }

    static void errors(Connection connection) throws SQLException {
        String[][] mistakes = {
            {"SELECT 1/0", "22012"},
            {"SELECT nothing", "42703"},
            {"SELEKT", "42601"},
            {"INSERT INTO " + TABLE + " VALUES (1, 'again')", "23505"},
        };
        for (String[] mistake : mistakes) {
            fails(connection, mistake[0], mistake[1]);
            same(ask(connection, "SELECT 1"), "1");
        }
    }

    static void largeRows(Connection connection) throws SQLException {
        same(ask(connection, "SELECT repeat('x', " + LARGE + ")").length(), LARGE);
        try (var statement = connection.prepareStatement("SELECT length(?::text)")) {
            statement.setString(1, "y".repeat(LARGE));
            same(first(statement.executeQuery()), Integer.toString(LARGE));
        }
    }

    /** What tools ask of the catalog. */
    static void metadata(Connection connection) throws SQLException {
        try (ResultSet columns = connection.getMetaData().getColumns(null, null, TABLE, null)) {
            columns.next();
            same(columns.getString("COLUMN_NAME"), "id");
        }
        try (ResultSet keys = connection.getMetaData().getPrimaryKeys(null, null, TABLE)) {
            keys.next();
            same(keys.getString("COLUMN_NAME"), "id");
        }
        same(connection.getMetaData().getDatabaseProductName(), "PostgreSQL");
    }

    /** The driver sends BEGIN READ ONLY, which any standby may serve. */
    static void readOnlyConnections(Connection connection) throws SQLException {
        connection.setReadOnly(true);
        connection.setAutoCommit(false);
        same(ask(connection, "SELECT note FROM " + TABLE + " WHERE id = 2"), "kept");
        fails(connection, "DELETE FROM " + TABLE, "25006");
        connection.rollback();
        connection.setAutoCommit(true);
        connection.setReadOnly(false);
        run(connection, "UPDATE " + TABLE + " SET note = 'kept' WHERE id = 2");
    }

    static String url() {
        String root = System.getenv("PGSSLROOTCERT");
        String tls = root == null ? "" : "?sslmode=verify-full&sslrootcert=" + root;
        return "jdbc:postgresql://" + System.getenv("PGHOST") + ":" + System.getenv("PGPORT") + "/"
                + System.getenv("PGDATABASE") + tls;
    }

    static Connection enter(Map<String, String> options) throws SQLException {
        Properties properties = new Properties();
        properties.setProperty("user", System.getenv("PGUSER"));
        properties.setProperty("password", System.getenv("PGPASSWORD"));
        properties.putAll(options);
        return DriverManager.getConnection(url(), properties);
    }

    static void run(Connection connection, String sql) throws SQLException {
        try (Statement statement = connection.createStatement()) {
            statement.execute(sql);
        }
    }

    static String ask(Connection connection, String sql) throws SQLException {
        try (Statement statement = connection.createStatement()) {
            return first(statement.executeQuery(sql));
        }
    }

    static String first(ResultSet rows) throws SQLException {
        try (rows) {
            if (!rows.next()) throw new AssertionError("no row");
            return rows.getString(1);
        }
    }

    static void fails(Connection connection, String sql, String state) throws SQLException {
        try (Statement statement = connection.createStatement()) {
            fails(connection, statement, sql, state);
        }
    }

    static void fails(Connection connection, Statement statement, String sql, String state) {
        try {
            statement.execute(sql);
        } catch (SQLException error) {
            same(error.getSQLState(), state);
            return;
        }
        throw new AssertionError(sql + ": no error");
    }

    static void same(Object found, Object expected) {
        if (!expected.equals(found)) throw new AssertionError(found + " instead of " + expected);
    }

    /** The name of a transaction in two phases. */
    record Named(byte[] name) implements Xid {
        public int getFormatId() {
            return 1;
        }

        public byte[] getGlobalTransactionId() {
            return name;
        }

        public byte[] getBranchQualifier() {
            return new byte[] {1};
        }
    }
}
