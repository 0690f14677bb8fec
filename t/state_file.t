# A zone with state= is in a file soon after each change, and comes back from it: records, ends and all bytes. What can't be
# loaded or written is told at the start.

use FindBin;
use lib "$FindBin::Bin/lib";
use ZoneMesh;

my $frame = <<'CONF';
    keyval $arg_key $value zone=one;
    server {
        listen 127.0.0.1:%%PORT%%;
        location /api  { api write=on; }
        location /read { return 200 "$value"; }
        location /set  { set $value $arg_v; return 204; }
    }
CONF

sub conf { return (http => "keyval_zone zone=one:1m $_[0];\n$frame") }
sub slurp { return ZoneMesh::Node::slurp($_[0]) }

my $node = node(workers => 2, conf('state=state/one.json timeout=1h'));
my $file = $node->worker_folder('state') . '/one.json';
sub about { return $node->get('/api/9/zonemesh/zones/one')->json->{state} }
sub saved { return !about()->{pending} }
sub spill { my ($text) = @_; open my $out, '>:raw', $file or die "$file: $!"; print {$out} $text; close $out or die $!; return }

# Relative to the prefix; nothing is made before there is something to keep.
$node->start;
ok(!-e $file, 'a zone that holds nothing has no file');
is(about()->{writes}, 0, '... which is shown');
is($node->add('one', 'a', 'v'), 201, 'a pair is added');
eventually { -e $file } 'its file is there soon';
is(json(slurp($file))->{a}{value}, 'v', '... relative to the prefix, as JSON in the shape of the API');
cmp_ok(abs(json(slurp($file))->{a}{expire} - 1000 * (time + 3600)), '<', 60_000, '... with its end as milliseconds of the epoch');
is((stat $file)[2] & 0777, 0600, '... for the workers alone');

# Every kind of change.
$node->patch('/api/9/http/keyvals/one', '{"a":{"value":"w","expire":600000}}');
eventually { json(slurp($file))->{a}{value} eq 'w' } 'a change';
$node->get('/set?key=by+variable&v=x');
eventually { exists json(slurp($file))->{'by+variable'} } 'a write through a variable';
$node->drop('one', 'by+variable');
eventually { !exists json(slurp($file))->{'by+variable'} } 'a delete';
$node->clear('one');
eventually { !%{ json(slurp($file)) } } 'an emptying';
$node->post('/api/9/http/keyvals/one', '{"short":{"value":"v","expire":1200}}');
eventually { exists json(slurp($file))->{short} } 'a record with a short life';
eventually { !exists json(slurp($file))->{short} } '... and its end', 5;
eventually { saved() } 'what is there is saved';
my $shown = about();
cmp_ok($shown->{writes}, '>=', 6, 'the API counts writes');
is($shown->{bytes}, -s $file, '... bytes');
is($shown->{errors}, 0, '... and failures');
like($shown->{written}, qr/^\d{4}-\d\d-\d\dT[\d:.]+Z$/, '... and says when');
cmp_ok($shown->{age}, '<', 60_000, '... and how long ago');

# A restart brings everything back, with what is left of each life.
my %all = map { ("key $_" => "value $_ \"\\\n\t" . chr(0x1f980) . 'v' x ($_ % 90)) } 1 .. 500;
$node->post('/api/9/http/keyvals/one', ZoneMesh::Node::encode(\%all));
$node->patch('/api/9/http/keyvals/one', '{"key 1":{"expire":2500}}');
$node->post('/api/9/http/keyvals/one', '{"nul\u0000":"a\u0000b"}');
$all{"nul\0"} = "a\0b";
is(defined $node->quit, 1, 'nginx quits');
is(scalar(glob "$file.*"), undef, '... and leaves nothing beside the file');
is($node->start->keyvals('one')->{'key 1'}, $all{'key 1'}, 'after a restart a record with a short life is there');
is_deeply($node->keyvals('one'), \%all, '... and so are all others, with all bytes that JSON has');
ok(scalar $node->wait_log(qr/keyval_zone "one" in .*: 501 records were read from ".*one.json"/), '... which the log says');
is(about()->{writes}, 0, '... and nothing is written again');
eventually { !exists $node->keyvals('one')->{'key 1'} } '... the short life ends when it would have ended', 5;

# TERM as well.
$node->add('one', 'last', 'before TERM');
cmp_ok($node->term // 99, '<', 1.5, 'nginx is terminated');
is(json(slurp($file))->{last}{value}, 'before TERM', '... and the file has what came last');

# What a worker wrote just before it was killed.
$node->start;
$node->add('one', 'killed', 'v');
allow_log(qr/exited on signal 9/);
$node->kill_worker($node->agent_worker);
eventually { exists json(slurp($file))->{killed} } 'another worker writes what a killed one had not';
$node->quit;

# By hand.
spill(<<'JSON');
{
  "plain": "value",
  "with an end": {"value": "v", "expire": 32503680000000},
  "ended": {"value": "v", "expire": 1000},
  "bytes": {"base64": "aGVsbG8="}
}
JSON
$node->start;
is_deeply($node->keyvals('one'), { plain => 'value', 'with an end' => 'v', bytes => 'hello' }, 'a file written by hand is read');
$node->add('one', 'one', 'more');
eventually { exists json(slurp($file))->{one} } '... and written again';
cmp_ok(json(slurp($file))->{plain}{expire}, '>', 1000 * time, '... what had no end has that of the zone, from the loading on');
is(json(slurp($file))->{'with an end'}{expire}, 32503680000000, '... and ends stay');
$node->quit;

# Bytes that aren't UTF-8 in keys and values.
{
    my $octets = "\xff\xfe\"\0\xc3";
    require MIME::Base64;
    spill('{"' . MIME::Base64::encode_base64("k$octets", '') . '":{"key":"base64","base64":"' . MIME::Base64::encode_base64("v$octets", '') . '"}}');
    $node->start;
    $node->add('one', 'x', 'y');
    $node->quit;
    my $there = json(slurp($file))->{ MIME::Base64::encode_base64("k$octets", '') };
    is($there->{key}, 'base64', 'a key of any bytes');
    is(MIME::Base64::decode_base64($there->{base64}), "v$octets", '... and its value survive');
}

# Missing and empty files are new zones.
for my $begin ('missing', 'empty') {
    unlink $file;
    spill('') if $begin eq 'empty';
    $node->start;
    is_deeply($node->keyvals('one'), {}, "$begin file: a new zone");
    $node->add('one', 'k', $begin);
    eventually { (json(slurp($file))->{k}{value} // '') eq $begin } '... which is kept';
    $node->quit;
}

# What is refused: by `nginx -t` and at the start, and nothing is written over.
sub refused {
    my ($name, @patterns) = @_;
    my $before = -f $file ? slurp($file) : undef;
    my ($ok, $said) = $node->check;
    ok(!$ok, "$name: nginx -t fails");
    my ($line) = grep { /\[emerg\]/ } split /\n/, $said;
    like($line // $said, $_, "$name: ... and says so") for qr/keyval_zone"? "one"/, @patterns;
    ok(!eval { $node->start; 1 }, "$name: nginx doesn't start");
    is(-f $file ? slurp($file) : undef, $before, "$name: ... and the file is as it was");
    return;
}
allow_log(qr/\[emerg\].*"one"/);
my $whole = slurp($file);
spill(substr $whole, 0, length($whole) - 3);
refused('cut short', qr/one\.json" is damaged at byte \d+: the file ends here/, qr/move it away/);
spill("\0" x 100);
refused('zeros', qr/is damaged at byte 0: an object of pairs has to begin here/);
spill('{"k":"v","k2":17}');
refused('a number', qr/is damaged at byte 14: a string or an object has to begin here/);
spill('{' . join(',', map { "\"key $_\":\"" . 'v' x 1000 . '"' } 1 .. 2000) . '}');
refused('too much', qr/has 2000 records, of which \d+ don't fit into the zone; give the zone more memory, or add "evict"/);
$node->configure(conf('state=state/one.json evict'));
$node->start;
cmp_ok(scalar keys %{ $node->keyvals('one') }, '>', 100, 'with evict what fits is loaded');
ok(scalar $node->wait_log(qr/\d+ records of ".*one\.json" didn't fit and were given up/), '... which the log says');
$node->quit;
spill($whole);
$node->configure(conf('state=state/one.json'));
my ($ok, $said) = $node->check;
ok($ok, 'nginx -t with a good file') or diag($said);
is(slurp($file), $whole, '... changes nothing');
$node->start;
$node->add('one', 'during', 'v');
eventually { saved() } 'a node that runs';
my $now = slurp($file);
my $ino = (stat $file)[1];
ok(($node->check)[0], '... while nginx -t tests the same configuration');
is((stat $file)[1], $ino, '... leaves the file alone');
$node->quit;

# Folders.
SKIP: {
    skip 'only root has workers of another user', 6 unless $> == 0;
    mkdir $node->prefix . '/locked' or die $!;
    for my $path ('locked/one.json', 'one.json') {
        $node->configure(conf("state=$path"));
        ($ok, $said) = $node->check;
        ok(!$ok, "$path: a folder that workers can't write to is refused");
        like($said, qr/\[emerg\].*"keyval_zone" "one": the workers' user "nobody" can't write to the folder ".*" of its state file \(Permission denied.*\).*; run: chown nobody \S+ in \S+nginx\.conf:\d+/, '... and how to mend it is said');
    }
    chown((getpwnam 'nobody')[ 2, 3 ], $node->prefix . '/locked');
    $node->configure(conf('state=locked/one.json'));
    ok(($node->check)[0], '... which helps');
    is(scalar(() = glob $node->prefix . '/locked/*'), 0, '... and the test leaves nothing there');
}
$node->configure(conf('state=nowhere/one.json'));
($ok, $said) = $node->check;
like($said, qr/\[emerg\].*"one": the folder ".*nowhere" of its state file is not there; run: mkdir -p \S+ && chown \S+/, 'a folder that is not there');
mkdir $node->prefix . '/state/folder.json';
$node->configure(conf('state=state/folder.json'));
like(($node->check)[1], qr/\[emerg\].*"one": its state file ".*folder\.json" is a folder/, 'a folder in the place of the file');

# A symbolic link is followed: the file that it leads to is replaced.
symlink "$file", $node->prefix . '/link.json' or die $!;
$node->configure(conf('state=link.json'));
$node->start;
$node->add('one', 'linked', 'v');
eventually { exists json(slurp($file))->{linked} } 'what a link leads to is written';
ok(-l $node->prefix . '/link.json', '... and the link stays');
$node->quit;

done_testing;
