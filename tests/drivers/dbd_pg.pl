# Perl's DBD::Pg through pgsteer; where to is in PGHOST and its like, which libpq reads by itself.
use strict;
use warnings;
use DBI;
use DBD::Pg qw(:async);
use Time::HiRes qw(sleep time);

my $LARGE = 8 * 1024 * 1024;
# Longest wait for a notification, in seconds.
my $PATIENCE = 10;
my $driver = "DBD::Pg $DBD::Pg::VERSION";
my $table  = sprintf("drv_perl_%d_%d", $$, time);

sub enter {
    my %options = (RaiseError => 1, PrintError => 0, AutoCommit => 1, @_);
    return DBI->connect('dbi:Pg:', '', '', \%options);
}

sub same {
    my ($found, $expected) = @_;
    $found = 'undef' unless defined $found;
    die "$found instead of $expected\n" unless $found eq $expected;
}

sub fails {
    my ($db, $sql, $state) = @_;
    die "$sql: no error\n" if eval { $db->do($sql); 1 };
    same($db->state, $state);
}

my @checks = (
    statements => sub {
        my $db = shift;
        $db->do("CREATE TABLE $table (id int PRIMARY KEY, note text)");
        same($db->do("INSERT INTO $table VALUES (1, 'a')"), 1);
        same($db->selectrow_array("SELECT note FROM $table"), 'a');
    },

    'prepared statements' => sub {
        my $db = shift;
        my $plus = $db->prepare('SELECT ?::int + 1', { pg_switch_prepared => 1 });
        for my $number (0 .. 19) {
            $plus->execute($number);
            same($plus->fetchrow_array, $number + 1);
        }
        same($plus->{pg_prepare_name} ne '', 1);
    },

    'own writes' => sub {
        my $db = shift;
        my $put  = $db->prepare('INSERT INTO drv_own_writes VALUES (?, ?)');
        my $seen = $db->prepare('SELECT count(*) FROM drv_own_writes WHERE run = ?');
        for my $number (0 .. 49) {
            $put->execute($table, $number);
            for (1 .. 3) {
                $seen->execute($table);
                same($seen->fetchrow_array, $number + 1);
            }
        }
    },

    transactions => sub {
        my $db = shift;
        $db->begin_work;
        $db->do("INSERT INTO $table VALUES (2, 'kept')");
        $db->pg_savepoint('s');
        fails($db, "INSERT INTO $table VALUES (2, 'twice')", '23505');
        $db->pg_rollback_to('s');
        $db->commit;
        $db->begin_work;
        $db->do("INSERT INTO $table VALUES (4, 'undone')");
        $db->rollback;
        my $ids = $db->selectcol_arrayref("SELECT id FROM $table WHERE id IN (2, 4)");
        same("@$ids", '2');
    },

    copy => sub {
        my $db = shift;
        $db->do("COPY $table FROM STDIN");
        $db->pg_putcopydata("$_\t" . 'c' x 100 . "\n") for 1000 .. 5999;
        $db->pg_putcopyend;
        $db->do("COPY (SELECT * FROM $table WHERE id >= 1000) TO STDOUT");
        my ($line, $count) = ('', 0);
        $count++ while $db->pg_getcopydata($line) >= 0;
        same($count, 5000);
        $db->do("COPY $table FROM STDIN");
        $db->pg_putcopydata("not a number\tx\n");
        die "a bad row was taken\n" if eval { $db->pg_putcopyend };
        same($db->state, '22P02');
        same($db->selectrow_array('SELECT 1'), 1);
    },

    cancel => sub {
        my $db = shift;
        my $start = time;
        $db->do('SELECT pg_sleep(30)', { pg_async => PG_ASYNC });
        sleep 0.5;
        # True if it was cancelled.
        same($db->pg_cancel, 1);
        die "it was cancelled late\n" if time - $start > 10;
        same($db->selectrow_array('SELECT 1'), 1) for 1 .. 50;
    },

    notifications => sub {
        my $db    = shift;
        my $other = enter();
        my @heard;
        my $until = sub {
            my $last = shift;
            my $end  = time + $PATIENCE;
            until (@heard && $heard[-1] eq $last) {
                die "$last did not come: @heard\n" if time > $end;
                my $one = $db->pg_notifies;
                if ($one) { push @heard, $one->[2] }
                else { sleep 0.01 }
            }
        };
        $db->do("LISTEN $table");
        $other->do("NOTIFY $table, 'idle'");
        $until->('idle');
        $db->do("NOTIFY $table, 'own'");
        $until->('own');
        for my $number (0 .. 19) {
            $other->do("NOTIFY $table, 'busy $number'");
            $db->selectrow_array("SELECT count(*) FROM $table");
            $db->do("UPDATE $table SET note = note WHERE id = 1");
        }
        $other->do("NOTIFY $table, 'end'");
        $until->('end');
        same("@heard", join ' ', 'idle', 'own', (map { "busy $_" } 0 .. 19), 'end');
        $other->disconnect;
    },

    errors => sub {
        my $db = shift;
        my @mistakes = (
            ['SELECT 1/0', '22012'],
            ['SELECT nothing', '42703'],
            ['SELEKT', '42601'],
            ["INSERT INTO $table VALUES (1, 'again')", '23505'],
        );
        for my $mistake (@mistakes) {
            fails($db, @$mistake);
            same($db->selectrow_array('SELECT 1'), 1);
        }
    },

    'large rows' => sub {
        my $db = shift;
        same(length $db->selectrow_array('SELECT repeat(?, ?)', undef, 'x', $LARGE), $LARGE);
        my $echoed = 'SELECT length(?::text)';
        same($db->selectrow_array($echoed, undef, 'y' x $LARGE), $LARGE);
    },

    'tidying up' => sub { shift->do("DROP TABLE $table") },
);

$| = 1;
my $failed = 0;
while (my ($title, $check) = splice @checks, 0, 2) {
    if (eval { my $db = enter(); $check->($db); $db->disconnect; 1 }) {
        print "PASS $driver: $title\n";
    } else {
        $failed++;
        my $why = $@ =~ s/\s+/ /gr;
        print "FAIL $driver: $title: $why\n";
    }
}
exit($failed ? 1 : 0);
