# Ruby's pg through pgsteer; where to is in PGHOST and its like, which libpq reads by itself.
require "pg"
require "securerandom"

LARGE = 8 * 1024 * 1024
# Longest wait for a notification, in seconds.
PATIENCE = 10
DRIVER = "ruby-pg #{PG::VERSION}"
TABLE = "drv_ruby_#{SecureRandom.hex(4)}"
CHECKS = {}

def check(title, &body) = CHECKS[title] = body

def same(found, expected)
  raise "#{found.inspect} instead of #{expected.inspect}" unless found == expected
end

def fails(state)
  yield
rescue PG::Error => error
  same(error.result&.error_field(PG::PG_DIAG_SQLSTATE), state)
else
  raise "no error, expected #{state}"
end

check "statements" do |db|
  db.exec("CREATE TABLE #{TABLE} (id int PRIMARY KEY, note text)")
  same(db.exec("INSERT INTO #{TABLE} VALUES (1, 'a')").cmd_tuples, 1)
  same(db.exec("SELECT note FROM #{TABLE}").values, [["a"]])
  same(db.exec("SELECT 1; SELECT 2").getvalue(0, 0), "2")
end

check "prepared statements" do |db|
  db.prepare("plus", "SELECT $1::int + 1")
  20.times { |number| same(db.exec_prepared("plus", [number]).getvalue(0, 0).to_i, number + 1) }
  same(db.describe_prepared("plus").nparams, 1)
  fails("42P05") { db.prepare("plus", "SELECT 1") }
  db.exec("DEALLOCATE plus")
  fails("26000") { db.exec_prepared("plus", [1]) }
end

check "pipelines" do |db|
  db.enter_pipeline_mode
  100.times { |number| db.send_query_params("SELECT $1::int", [number]) }
  db.pipeline_sync
  100.times do |number|
    same(db.get_result.getvalue(0, 0).to_i, number)
    same(db.get_result, nil)
  end
  same(db.get_result.result_status, PG::PGRES_PIPELINE_SYNC)
  db.exit_pipeline_mode
end

check "own writes" do |db|
  50.times do |number|
    db.exec_params("INSERT INTO drv_own_writes VALUES ($1, $2)", [TABLE, number])
    3.times do
      seen = db.exec_params("SELECT count(*) FROM drv_own_writes WHERE run = $1", [TABLE])
      same(seen.getvalue(0, 0).to_i, number + 1)
    end
  end
end

check "transactions" do |db|
  db.transaction do
    db.exec("INSERT INTO #{TABLE} VALUES (2, 'kept'); SAVEPOINT s")
    fails("23505") { db.exec("INSERT INTO #{TABLE} VALUES (2, 'twice')") }
    same(db.transaction_status, PG::PQTRANS_INERROR)
    db.exec("ROLLBACK TO s")
  end
  begin
    db.transaction do
      db.exec("INSERT INTO #{TABLE} VALUES (4, 'undone')")
      raise "changed my mind"
    end
  rescue RuntimeError
    same(db.transaction_status, PG::PQTRANS_IDLE)
  end
  same(db.exec("SELECT id FROM #{TABLE} WHERE id IN (2, 4)").values, [["2"]])
end

check "copy" do |db|
  done = db.copy_data("COPY #{TABLE} FROM STDIN") do
    (1000...6000).each { |number| db.put_copy_data("#{number}\t#{"c" * 100}\n") }
  end
  same(done.cmd_tuples, 5000)
  count = 0
  db.copy_data("COPY (SELECT * FROM #{TABLE} WHERE id >= 1000) TO STDOUT") do
    count += 1 while db.get_copy_data
  end
  same(count, 5000)
  fails("22P02") do
    db.copy_data("COPY #{TABLE} FROM STDIN") { db.put_copy_data("not a number\tx\n") }
  end
  same(db.exec("SELECT 1").getvalue(0, 0), "1")
end

check "cancel" do |db|
  start = Time.now
  db.send_query("SELECT pg_sleep(30)")
  sleep 0.5
  same(db.cancel, nil)
  fails("57014") { db.get_last_result }
  raise "it was cancelled late" if Time.now - start > 10
  50.times { same(db.exec("SELECT 1").getvalue(0, 0), "1") }
end

check "notifications" do |db|
  other = PG.connect
  heard = []
  till = lambda do |last|
    until heard.last == last
      came = db.wait_for_notify(PATIENCE) { |_channel, _pid, payload| heard << payload }
      raise "#{last} did not come: #{heard}" unless came
    end
  end
  db.exec("LISTEN #{TABLE}")
  other.exec("NOTIFY #{TABLE}, 'idle'")
  till.("idle")
  db.exec("NOTIFY #{TABLE}, 'own'")
  till.("own")
  20.times do |number|
    other.exec("NOTIFY #{TABLE}, 'busy #{number}'")
    db.exec("SELECT count(*) FROM #{TABLE}")
    db.exec("UPDATE #{TABLE} SET note = note WHERE id = 1")
  end
  other.exec("NOTIFY #{TABLE}, 'end'")
  till.("end")
  same(heard, ["idle", "own", *(0...20).map { |number| "busy #{number}" }, "end"])
  other.close
end

check "errors" do |db|
  {
    "SELECT 1/0" => "22012",
    "SELECT nothing" => "42703",
    "SELEKT" => "42601",
    "INSERT INTO #{TABLE} VALUES (1, 'again')" => "23505",
  }.each do |sql, state|
    fails(state) { db.exec(sql) }
    fails(state) { db.exec_params(sql, []) }
    same(db.exec("SELECT 1").getvalue(0, 0), "1")
  end
end

check "large rows" do |db|
  same(db.exec_params("SELECT repeat('x', $1)", [LARGE]).getvalue(0, 0).size, LARGE)
  same(db.exec_params("SELECT length($1::text)", ["y" * LARGE]).getvalue(0, 0).to_i, LARGE)
  rows = 0
  db.send_query("SELECT repeat('z', 80000) FROM generate_series(1, 100)")
  db.set_single_row_mode
  db.get_result.stream_each { rows += 1 }
  same(rows, 100)
end

check("tidying up") { |db| db.exec("DROP TABLE #{TABLE}") }

$stdout.sync = true
failed = 0
CHECKS.each do |title, body|
  db = PG.connect
  body.call(db)
  puts "PASS #{DRIVER}: #{title}"
rescue StandardError => error
  failed += 1
  puts "FAIL #{DRIVER}: #{title}: #{error.class}: #{error.message.gsub(/\s+/, " ")}"
ensure
  db&.close
end
exit(failed.zero? ? 0 : 1)
