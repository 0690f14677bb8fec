package ZoneMesh::Bench::Sessions;

# `scripts/bench sessions`: what `sticky` costs a request, against the same upstream without it, and what `keyval_incr` costs. And
# whether two nodes that count under load come to the same sum.

use strict;
use warnings;

use IO::Socket::INET;
use Time::HiRes qw(sleep time);

use ZoneMesh::Bench::Cluster;
use ZoneMesh::Bench::Report;
use ZoneMesh::Node;

my $SESSIONS = 10_000;

# Requests with a session or an address, drawn at random; all have been rendered before the clock starts.
my $SCRIPT = <<'LUA';
local requests, n, i = {}, 50000, 0
function init(args)
    math.randomseed(os.time())
    for at = 1, n do
        local who = math.random(0, tonumber(args[2]) - 1)
        requests[at] = wrk.format("GET", string.format("%s?k=key%08d", args[1], who),
            { Cookie = string.format("session=s%08d; srv=%s", who, args[3]) })
    end
end
function request()
    i = i % n + 1
    return requests[i]
end
function done(summary)
    io.write(string.format("RESULT %d %d %d\n", summary.requests, summary.duration, summary.errors.status))
end
LUA

# Both nodes' workers run on one core, and wrk on the other.
my @ON_ONE_CORE = (main => 'worker_cpu_affinity 01; worker_rlimit_nofile 4096;', events => 'worker_connections 1024;');

sub run {
    my (%given) = @_;
    return measure(sessions => 'Sessions and counters', [ \&cost, \&sums ], %given);
}

sub cost {
    my (%given) = @_;
    my ($rounds, $seconds) = $given{quick} ? (3, 1) : (5, 2);
    # The servers are an nginx of their own, which has little to do: it shares the other core with wrk.
    my @ports = map { free_port() } 1 .. 3;
    my $servers = ZoneMesh::Node->new(
        name => 'servers', modules => [], port => $ports[0], workers => 1, main => 'worker_cpu_affinity 10; worker_rlimit_nofile 4096;',
        events => 'worker_connections 1024;', http => 'keepalive_requests 1000000000;' . join '', map { "
        server { listen 127.0.0.1:$_; location /login { add_header Set-Cookie session=\$arg_s; return 200 \"a page\\n\"; } location / { return 200 \"a page\\n\"; } }" } @ports,
    )->start;
    my $lines = 'zone %s 64k; ' . join('', map { "server 127.0.0.1:$_; " } @ports) . 'keepalive 32;';
    my $learn = 'sticky learn create=$upstream_cookie_session lookup=$cookie_session zone=';
    my @variants = (
        [ none   => 'proxied, without',               '' ],
        [ route  => 'proxied, `sticky route`',        'sticky route $cookie_srv;', 'none' ],
        [ cookie => 'proxied, `sticky cookie`',       'sticky cookie srv;',        'none' ],
        [ learn  => 'proxied, `sticky learn`',        "${learn}learned:4m;",       'none' ],
        [ sync   => 'proxied, `sticky learn ... sync`', "${learn}shared:4m sync;", 'none' ],
    );
    my $http = 'proxy_http_version 1.1; proxy_set_header Connection "";'
        . join('', map { my ($name, undef, $sticky) = @$_; sprintf "upstream $name { $lines $sticky }\n", $name } @variants);
    $http .= 'keyval_zone zone=own:4m type=counter timeout=1h; keyval_zone zone=counts:4m type=counter timeout=1h sync;';
    my @counting = (
        [ plain => '`return 200`',                                                '' ],
        [ own   => '`return 200`, `keyval_incr`, one counter a client',           'keyval_incr $arg_k zone=own;',    'plain' ],
        [ count => '`return 200`, `keyval_incr`, one counter a client, sync',     'keyval_incr $arg_k zone=counts;', 'plain' ],
        [ all   => '`return 200`, `keyval_incr`, one counter for all, sync',      'keyval_incr all zone=counts;',    'plain' ],
    );
    my ($node, $other) = cluster(2, $http . 'server { listen 127.0.0.1:%%PORT%%; location /api { api; }'
        . join('', map { "location /$_->[0]/ { proxy_pass http://$_->[0]/; }\n" } @variants)
        . join('', map { "location = /$_->[0] { $_->[2] return 200 \"a page\\n\"; }\n" } @counting) . '}', @ON_ONE_CORE);
    my $script = $node->write_file('wrk.lua', $SCRIPT);
    my $name   = md5("127.0.0.1:$ports[1]");
    # Sessions begin on the other node: they come by the cluster.
    begin_sessions($other, $_) for qw(learn sync);
    begin_sessions($node, 'learn');
    my @pin = -e '/sys/devices/system/cpu/cpu1' ? qw(taskset -c 1) : ();
    my %samples;
    for my $round (0 .. $rounds) {
        for my $variant (@variants, @counting) {
            my ($place)  = @$variant;
            my $path     = (grep { $_->[0] eq $place } @variants) ? "/$place/" : "/$place";
            my ($worker) = $node->workers;
            my $before   = cpu_ns($worker);
            my $said     = qx(@pin wrk -t1 -c16 -d${seconds}s -s $script http://127.0.0.1:@{[ $node->port ]} -- $path $SESSIONS $name 2>&1);
            my $cpu      = cpu_ns($worker) - $before;
            my ($requests, $micros, $wrong) = $said =~ /^RESULT (\d+) (\d+) (\d+)$/m or die "wrk on $path said: $said\n";
            die "$wrong of $requests requests to $path failed\n" if $wrong || !$requests;
            next unless $round;    # the first is for the caches
            push @{ $samples{$place}{rate} }, $requests * 1e6 / $micros;
            push @{ $samples{$place}{cpu} },  $cpu / 1000 / $requests;
        }
    }
    my $out = "### Cost\n\nOne worker, wrk with 16 connections kept alive; behind `proxy_pass` three servers (in one nginx, which shares the other core with wrk),\n"
        . "kept alive, too. $SESSIONS sessions or clients in turn at random, of `timeout=10m`. A second node is connected and takes all that is shared;\n"
        . "it and the helper threads use these two cores as well.\n\n"
        . row('request', 'requests/s', "worker's processor time per request, us", 'times that without', 'more processor time, us') . row(('---') x 5);
    for my $variant (@variants, @counting) {
        my ($place, $label, undef, $to) = @$variant;
        my $own  = $samples{$place};
        my $more = $to ? figure(median(map { $own->{cpu}[$_] - $samples{$to}{cpu}[$_] } 0 .. $#{ $own->{cpu} })) : '';
        $out .= row($label, with_spread($own->{rate}), with_spread($own->{cpu}), $to ? with_spread([ ratio($own->{rate}, $samples{$to}{rate}) ]) : '', $more);
    }
    end_cluster();
    $servers->stop;
    return $out;
}

sub begin_sessions {
    my ($node, $place) = @_;
    my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $node->port) or die "$!\n";
    for (my $at = 0; $at < $SESSIONS; $at += 50) {
        print {$socket} join '', map { sprintf "HEAD /$place/login?s=s%08d HTTP/1.1\r\nHost: a\r\n\r\n", $_ } $at .. $at + 49;
        my ($bytes, $seen) = ('', 0);
        while ($seen < 50) { sysread $socket, $bytes, 65_536, length $bytes or die "closed\n"; $seen = () = $bytes =~ /\r\n\r\n/g }
    }
    return;
}

# Two nodes count the same counters at the same time, as fast as they can.
sub sums {
    my (%given) = @_;
    my $seconds = $given{quick} ? 1 : 4;
    my @made = cluster(2, 'keyval_zone zone=counts:4m type=counter sync;
        server { listen 127.0.0.1:%%PORT%%; location /api { api; } location /count { keyval_incr all zone=counts; keyval_incr $arg_k zone=counts; return 204; } }', @ON_ONE_CORE);
    my @running = map {
        my $script = $_->write_file('wrk.lua', $SCRIPT);
        open my $out, '-|', "wrk -t1 -c8 -d${seconds}s -s $script http://127.0.0.1:@{[ $_->port ]} -- /count 100 none 2>&1" or die "wrk: $!\n";
        $out;
    } @made;
    my $answered = 0;
    for my $out (@running) {
        my $said = do { local $/; <$out> };
        $said =~ /^RESULT (\d+) /m or die "wrk said: $said\n";
        $answered += $1;
    }
    # nginx may have answered requests that wrk didn't wait for: what it counted is what counts.
    my (@all, @parts);
    my $until = time + 10;
    while (1) {
        my @zones = map { $_->get('/api/9/http/keyvals/counts')->json } @made;
        @all = map { $_->{all} // 0 } @zones;
        @parts = map { my $zone = $_; my $sum = 0; $sum += $zone->{$_} for grep { /^key/ } keys %$zone; $sum } @zones;
        last if $all[0] == $all[1] && $parts[0] == $all[0] && $parts[1] == $all[0] || time > $until;
        sleep 0.05;
    }
    end_cluster();
    my $same = $all[0] == $all[1] && $parts[0] == $all[0] && $parts[1] == $all[0] ? 'the same on both, and the sum of a hundred others that were counted beside it'
        : "not the same: @all, the others @parts";
    return "### Two nodes that count\n\nBoth under load from a wrk of its own for $seconds s, each request counted in one counter of all and in one of a hundred: $answered requests\n"
        . "were answered, and the counter of all is $all[0], $same. (A request that wrk gave up at its end was counted, too.)\n";
}

sub md5 { my ($text) = @_; require Digest::MD5; return Digest::MD5::md5_hex($text) }

1;
