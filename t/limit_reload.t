# limit_req over reloads: requests that wait meanwhile, on nginx's own zones and on those with `sync`, and workers of the last
# configuration that still limit requests in memory of another size.

use FindBin;
use lib "$FindBin::Bin/lib";
use ZoneMesh;

my $zones = <<'CONF';
    limit_req_zone $arg_key zone=KIND/late:SIZE rate=30r/m SYNC;
    limit_req_zone $arg_key zone=KIND/slow:SIZE rate=1r/m  SYNC;
CONF
my $server = <<'CONF';
    server {
        listen 127.0.0.1:%%KIND%%;
        add_header X-Status "$limit_req_status" always;
        add_header X-Pid $pid always;
        location /api   { api; }
        location /late  { limit_req zone=KIND/late burst=2; alias %%PREFIX%%/page; }
        location /burst { limit_req zone=KIND/slow burst=2 nodelay; alias %%PREFIX%%/page; }
    }
CONF
my @kinds = qw(plain sync);
my %port  = map { $_ => port() } @kinds;

sub http {
    my ($size) = @_;
    return join '', map { my ($kind, $sync) = ($_, $_ eq 'sync' ? 'sync' : ''); "$zones$server" =~ s/KIND/$kind/gr =~ s/SYNC/$sync/gr =~ s/SIZE/$size/gr } @kinds;
}
my $node = node(vars => {%port}, http => http('1m'));
$node->write_file('page', "a page\n");
$node->start;

sub ask { my ($kind, $target) = @_; return ZoneMesh::Http->request($port{$kind}, 'GET', $target) }
sub delays { my @lines = $node->grep_log(qr/delaying request/); return scalar @lines }

# Sends a request, or the beginning of one, and returns the connection.
sub begin { my ($kind, $text) = @_; my $socket = tcp($port{$kind}); print {$socket} $text; return $socket }
# What came back in the end: status, what became of it, and the worker that answered.
sub answer {
    my ($bytes) = read_all($_[0], 10);
    return [ $bytes =~ m{^HTTP/1\.\d (\d+)}, $bytes =~ /^X-Status: (\S+)/mi, $bytes =~ /^X-Pid: (\d+)/mi ];
}

my $n = 0;
for (['the same', '1m'], ['more', '2m'], ['less', '512k']) {
    my ($what, $size) = @$_;
    my $key   = 'waits' . $n++;
    my ($old) = $node->workers;
    is(ask($_, "/late?key=$key")->status, 200, "$_: a request") for @kinds;
    my $before  = delays();
    my %waiting = map { $_ => begin($_, "GET /late?key=$key HTTP/1.0\r\n\r\n") } @kinds;
    eventually { delays() == $before + @kinds } 'another one each has to wait';
    $node->reload(http => http($size));
    isnt(($node->workers)[0], $old, "a reload with $what memory");
    is_deeply(answer($waiting{$_}), [ 200, 'DELAYED', $old ], "$_: what waited is answered by the worker that it waited in") for @kinds;
    eventually { !$node->old_workers } '... which then ends';
    is_deeply([ map { ask('sync', "/burst?key=$key")->status } 1 .. 4 ], [ (200) x 3, 503 ], '... and all goes on');
}

# A request whose header comes slowly is limited by the old worker, in the old memory.
my ($old)  = $node->workers;
my $slowly = begin('sync', "GET /burst?key=slowly HTTP/1.0\r\nX-More: ");
is(ask('sync', '/burst?key=other')->status, 200, 'the worker has it, as it has what came after it');
$node->reload(http => http('1m'));
sub records { return $node->get('/api/9/zonemesh/zones/sync%2Fslow')->json->{records} }
$node->{port} = $port{sync};
my $records = records();
print {$slowly} "yes\r\n\r\n";
is_deeply(answer($slowly), [ 200, 'PASSED', $old ], 'an old worker admits a request in memory of another size');
eventually { records() == $records + 1 } '... of which the new memory hears';
is_deeply([ map { ask('sync', '/burst?key=slowly')->status } 1 .. 3 ], [ 200, 200, 503 ], '... where it counts, once');

done_testing;
