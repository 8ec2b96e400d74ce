<?php
// PHP through pgsteer: PDO, and the older pgsql extension for what PDO has not (cancel). Where to
// is in PGHOST and its like, which libpq reads by itself.

const LARGE = 8 * 1024 * 1024;
// Longest wait for a notification, in milliseconds.
const PATIENCE = 10_000;
define('DRIVER', 'PDO_PGSQL ' . PHP_VERSION);
define('TABLE', 'drv_php_' . bin2hex(random_bytes(4)));

function enter(): PDO
{
    // PDO wants a host, a user and a password of its own.
    $dsn = 'pgsql:host=' . getenv('PGHOST') . ';port=' . getenv('PGPORT');
    $options = [PDO::ATTR_ERRMODE => PDO::ERRMODE_EXCEPTION];
    return new PDO($dsn, getenv('PGUSER'), getenv('PGPASSWORD'), $options);
}

function same(mixed $found, mixed $expected): void
{
    if ($found !== $expected) {
        throw new Exception(json_encode($found) . ' instead of ' . json_encode($expected));
    }
}

function ask(PDO $db, string $sql): mixed
{
    return $db->query($sql)->fetchColumn();
}

function fails(PDO $db, string $sql, string $state): void
{
    try {
        $db->query($sql);
    } catch (PDOException $error) {
        same($error->errorInfo[0], $state);
        return;
    }
    throw new Exception("$sql: no error");
}

$table = TABLE;
$checks = [
    'statements' => function (PDO $db) use ($table) {
        $db->exec("CREATE TABLE $table (id int PRIMARY KEY, note text)");
        same($db->exec("INSERT INTO $table VALUES (1, 'a')"), 1);
        same(ask($db, "SELECT note FROM $table"), 'a');
    },
    'prepared statements' => function (PDO $db) {
        $plus = $db->prepare('SELECT ?::int + 1');
        for ($number = 0; $number < 20; $number++) {
            $plus->execute([$number]);
            same($plus->fetchColumn(), $number + 1);
        }
        $emulated = $db->prepare('SELECT ?::int + 2', [PDO::ATTR_EMULATE_PREPARES => true]);
        $emulated->execute([1]);
        same($emulated->fetchColumn(), 3);
    },
    'own writes' => function (PDO $db) use ($table) {
        $put = $db->prepare('INSERT INTO drv_own_writes VALUES (?, ?)');
        $seen = $db->prepare('SELECT count(*) FROM drv_own_writes WHERE run = ?');
        for ($number = 0; $number < 50; $number++) {
            $put->execute([$table, $number]);
            for ($time = 0; $time < 3; $time++) {
                $seen->execute([$table]);
                same($seen->fetchColumn(), $number + 1);
            }
        }
    },
    'transactions' => function (PDO $db) use ($table) {
        $db->beginTransaction();
        $db->exec("INSERT INTO $table VALUES (2, 'kept')");
        $db->exec('SAVEPOINT s');
        fails($db, "INSERT INTO $table VALUES (2, 'twice')", '23505');
        $db->exec('ROLLBACK TO s');
        $db->commit();
        $db->beginTransaction();
        $db->exec("INSERT INTO $table VALUES (4, 'undone')");
        $db->rollBack();
        $ids = $db->query("SELECT id FROM $table WHERE id IN (2, 4)")->fetchAll(PDO::FETCH_COLUMN);
        same($ids, [2]);
    },
    'copy' => function (PDO $db) use ($table) {
        $rows = array_map(fn ($id) => "$id\t" . str_repeat('c', 100), range(1000, 5999));
        same($db->pgsqlCopyFromArray($table, $rows), true);
        same(count($db->pgsqlCopyToArray($table)) >= 5000, true);
        try {
            $db->pgsqlCopyFromArray($table, ["not a number\tx"]);
            throw new Exception('a bad row was taken');
        } catch (PDOException $error) {
            same($error->errorInfo[0], '22P02');
        }
        same(ask($db, 'SELECT 1'), 1);
    },
    'cancel' => function () {
        $db = pg_connect('');
        $start = microtime(true);
        pg_send_query($db, 'SELECT pg_sleep(30)');
        usleep(500_000);
        same(pg_cancel_query($db), true);
        same(microtime(true) - $start < 10, true);
        for ($time = 0; $time < 50; $time++) {
            same(pg_fetch_result(pg_query($db, 'SELECT 1'), 0, 0), '1');
        }
        // And what is told of it.
        pg_query($db, "SET statement_timeout = '300ms'");
        pg_send_query($db, 'SELECT pg_sleep(30)');
        same(pg_result_error_field(pg_get_result($db), PGSQL_DIAG_SQLSTATE), '57014');
        pg_close($db);
    },
    'notifications' => function (PDO $db) use ($table) {
        $other = enter();
        $heard = [];
        $until = function (string $last) use ($db, &$heard) {
            while (end($heard) !== $last) {
                $one = $db->pgsqlGetNotify(PDO::FETCH_ASSOC, PATIENCE);
                if (!$one) {
                    throw new Exception("$last did not come: " . implode(' ', $heard));
                }
                $heard[] = $one['payload'];
            }
        };
        $db->exec("LISTEN $table");
        $other->exec("NOTIFY $table, 'idle'");
        $until('idle');
        $db->exec("NOTIFY $table, 'own'");
        $until('own');
        for ($number = 0; $number < 20; $number++) {
            $other->exec("NOTIFY $table, 'busy $number'");
            ask($db, "SELECT count(*) FROM $table");
            $db->exec("UPDATE $table SET note = note WHERE id = 1");
        }
        $other->exec("NOTIFY $table, 'end'");
        $until('end');
        $busy = array_map(fn ($number) => "busy $number", range(0, 19));
        same($heard, ['idle', 'own', ...$busy, 'end']);
    },
    'errors' => function (PDO $db) use ($table) {
        $mistakes = [
            'SELECT 1/0' => '22012',
            'SELECT nothing' => '42703',
            'SELEKT' => '42601',
            "INSERT INTO $table VALUES (1, 'again')" => '23505',
        ];
        foreach ($mistakes as $sql => $state) {
            fails($db, $sql, $state);
            same(ask($db, 'SELECT 1'), 1);
        }
    },
    'large rows' => function (PDO $db) {
        $long = $db->prepare('SELECT repeat(?, ?::int)');
        $long->execute(['x', LARGE]);
        same(strlen($long->fetchColumn()), LARGE);
        $echoed = $db->prepare('SELECT length(?::text)');
        $echoed->execute([str_repeat('y', LARGE)]);
        same($echoed->fetchColumn(), LARGE);
    },
    'tidying up' => fn (PDO $db) => $db->exec("DROP TABLE $table"),
];

$failed = 0;
foreach ($checks as $title => $check) {
    try {
        $check(enter());
        echo 'PASS ', DRIVER, ": $title\n";
    } catch (Throwable $error) {
        $failed++;
        echo 'FAIL ', DRIVER, ": $title: ", preg_replace('/\s+/', ' ', $error->getMessage()), "\n";
    }
}
exit($failed ? 1 : 0);
