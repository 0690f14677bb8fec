# Reloads of a zone with a state file: memory is newer than the file, another size or another file lose nothing, old workers
# write over nothing, and a module of another build begins with the file.

use FindBin;
use lib "$FindBin::Bin/lib";
use ZoneMesh;

use File::Copy ();

my $frame = <<'CONF';
    keyval $arg_key $value zone=one;
    server {
        listen 127.0.0.1:%%PORT%%;
        location /api  { api write=on; }
        location /set  { set $value $arg_v; return 204; }
    }
CONF

sub conf { return (http => "keyval_zone zone=one:$_[0];\n$frame") }
sub slurp { return ZoneMesh::Node::slurp($_[0]) }

my $node = node(workers => 2, conf('256k'));
my $folder = $node->worker_folder('state');
my $file   = "$folder/one.json";
sub about   { return $node->get('/api/9/zonemesh/zones/one')->json->{state} }
sub in_file { my ($key, $path) = @_; my $pair = json(slurp($path // $file))->{$key}; return ref $pair ? $pair->{value} : $pair }

# state= comes, changes, and goes by reload.
open my $old, '>', $file or die $!;
print {$old} '{"a":"of long ago","b":"of long ago"}';
close $old;
$node->start;
is(about(), undef, 'a zone without a state file says so');
$node->add('one', 'a', 'in memory');
$node->reload(conf('256k state=state/one.json'));
is_deeply($node->keyvals('one'), { a => 'in memory' }, 'a reload that adds state= keeps what is in memory');
eventually { in_file('a') eq 'in memory' } '... and writes that';
is(in_file('b'), undef, '... over what the file had');
$node->reload(conf('256k state=state/two.json'));
eventually { -e "$folder/two.json" && in_file('a', "$folder/two.json") eq 'in memory' } 'another file is written at once';
$node->reload(conf('256k state=state/one.json'));
$node->add('one', 'c', 'v');
eventually { (in_file('c') // '') eq 'v' } 'and the first again';
my $inode = (stat $file)[1];
eventually { !about()->{pending} && !$node->old_workers } 'nothing is left to write';
$inode = (stat $file)[1];
$node->reload;
eventually { defined $node->agent_worker } 'a reload that changes nothing';
sleep 0.5;
is((stat $file)[1], $inode, '... writes nothing');

# What was written right before a reload, and by workers that stay behind.
for my $round (1 .. 5) {
    my $slow = tcp($node->port);
    my $body = "{\"slow $round\":\"v\"}";
    print {$slow} "POST /api/9/http/keyvals/one HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: " . length($body) . "\r\n\r\n{";
    sleep 0.1;
    $node->add('one', "before $round", 'v');
    $node->reload(conf(($round % 2 ? '512k' : '256k') . ' state=state/one.json'));
    $node->add('one', "after $round", 'v');
    print {$slow} substr $body, 1;
    my ($bytes) = read_all($slow, 5);
    like($bytes, qr{^HTTP/1.1 201}, "reload $round with another size: an old worker takes a write");
    eventually { 3 == grep { (in_file("$_ $round") // '') eq 'v' } qw(before slow after) } '... and the file has it, and what came before and after';
}
eventually { !$node->old_workers } 'old workers go';
my %all = %{ $node->keyvals('one') };
eventually { !about()->{pending} } 'all is written';
is_deeply({ map { $_ => in_file($_) } keys %{ json(slurp($file)) } }, \%all, '... and the file is what the zone holds');

# Old workers that hang on after they have lost the lease: the file is the new workers' alone.
{
    my $hanging = tcp($node->port);
    print {$hanging} "POST /api/9/http/keyvals/one HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\n{";
    sleep 0.2;
    for my $n (1 .. 5) {
        $node->reload;
        $node->add('one', "newer $n", 'v');
        eventually { (in_file("newer $n") // '') eq 'v' } "reload $n beside an old worker that stays: the file follows";
    }
    is(scalar(() = glob "$file.*"), 0, '... and nothing lies beside it');
    close $hanging;
}
$node->quit;

# A module of another build has memory of its own: it begins with the file.
{
    my $other = $node->prefix . '/other.so';
    File::Copy::copy(ZoneMesh::Node::module_file('zonemesh'), $other) or die $!;
    $node->start;
    my %before = %{ $node->keyvals('one') };
    $node->reload(modules => [ 'stream', $other ]);
    ok(scalar $node->wait_log(qr/keyval_zone "one" in .* begins with its state file: /), 'a replaced module: the log says what the zone begins with');
    is_deeply($node->keyvals('one'), \%before, '... and all is there');
    $node->quit;
}

# A damaged file is no matter for a zone that is in memory, and refuses a new one; the node goes on with what it had.
{
    allow_log(qr/\[emerg\].*(?:two|one)/);
    $node->configure(modules => undef);
    $node->start;
    open my $broken, '>', "$folder/broken.json" or die $!;
    print {$broken} '{"k":';
    close $broken;
    $node->configure(http => "keyval_zone zone=one:512k state=state/one.json; keyval_zone zone=two:64k state=state/broken.json;\n$frame");
    my %workers = map { $_ => 1 } $node->workers;
    $node->signal('HUP');
    ok(scalar $node->wait_log(qr/\[emerg\].*keyval_zone "two" in .*broken\.json" is damaged at byte 5: the file ends here/), 'a reload that brings a zone with a damaged file is refused');
    is(scalar(grep { !$workers{$_} } $node->workers), 0, '... and the workers are those of before');
    is($node->add('one', 'goes on', 'v'), 201, '... which go on');
    eventually { (in_file('goes on') // '') eq 'v' } '... with their file';
    is(slurp("$folder/broken.json"), '{"k":', '... and the damaged one is as it was');
}

# Without a master, one process is old and new worker.
my $single = node(name => 'single', main => 'master_process off;', workers => 0, conf('256k state=state/one.json'));
my $its = $single->worker_folder('state') . '/one.json';
$single->start;
eventually { $single->get('/api/')->status == 200 } 'without a master: nginx answers';
$single->add('one', 'k', 'v');
eventually { in_file('k', $its) eq 'v' } '... the file is written';
my $loads = () = $single->grep_log(qr/using the "epoll"/);
$single->signal('HUP');
# nginx without a master may take no connections after that, so that the helper thread alone is looked at.
ok(scalar $single->wait_log(qr/using the "epoll"/, 5, $loads), '... it reloads');
$single->quit;
is(in_file('k', $its), 'v', '... and the file is as it was');
$single->start;
eventually { ($single->keyvals('one')->{k} // '') eq 'v' } '... and is read by the next';
$single->change('one', 'k', 'x');
$single->quit;
is(in_file('k', $its), 'x', '... and written at the end');

done_testing;
