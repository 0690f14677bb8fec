package ZoneMesh::Bench::Limits;

# `scripts/bench limits`: what limit_req costs on zones with `sync` and on nginx's own, what a key takes, a million of them, and
# what a cluster admits of a load that is three times the rate.

use strict;
use warnings;

use File::Temp ();
use IO::Select;
use IO::Socket::INET;
use Time::HiRes qw(sleep time);

use ZoneMesh::Bench::Cluster;
use ZoneMesh::Bench::Report;
use ZoneMesh::Bench::Turns;
use ZoneMesh::Node;

# The least that requests a second with `sync` may be, against the same without.
my $TARGET = 0.95;
# Of accuracy: seconds of a run, and how many times the rate is offered.
my ($SECONDS, $TIMES) = (10, 3);

my $SCRIPT = <<'LUA';
local requests, i = {}, 0
function init(args)
    math.randomseed(os.time())
    for at = 1, 50000 do
        requests[at] = wrk.format("GET", string.format("%s?k=key%08d", args[1], math.random(0, tonumber(args[2]) - 1)))
    end
end
function request()
    i = i % #requests + 1
    return requests[i]
end
function done(summary)
    io.write(string.format("RESULT %d %d\n", summary.requests, summary.duration))
end
LUA

sub run {
    my (%given) = @_;
    return measure(limits => 'Limits of requests', [ \&cost, \&space, \&million, \&delay, \&accuracy ], %given);
}

# Requests a second and the worker's processor time for each, in rounds that take turns.
sub cost {
    my (%given) = @_;
    my ($keys, $rounds, $seconds) = (10_000, $given{quick} ? 3 : 9, $given{quick} ? 1 : 2);
    my $places = join '', map { my ($name, $zone) = @$_; "location = /$name { $zone alias %%PREFIX%%/page; }\n" } (
        [ none => '' ], [ own => 'limit_req zone=own burst=1000000 nodelay;' ], [ shared => 'limit_req zone=shared burst=1000000 nodelay;' ],
        [ 'refused-own' => 'limit_req zone=slow-own;' ], [ 'refused-shared' => 'limit_req zone=slow-shared;' ],
    );
    my $zones = join '', map { "limit_req_zone \$arg_k zone=$_->[0]:16m rate=$_->[1]; limit_req_zone \$arg_k zone=$_->[2]:16m rate=$_->[1] sync;\n" }
        ([ 'own', '1000r/s', 'shared' ], [ 'slow-own', '1r/m', 'slow-shared' ]);
    my @nodes = cluster(2, "$zones limit_req_log_level info;
        server { listen 127.0.0.1:%%PORT%%; location /api { api; } $places }",
        main => 'worker_cpu_affinity 01;', events => 'worker_connections 1024;');
    # nginx writes no line for each request that is refused: that would be what is measured.
    $_->configure(http => "error_log logs/error.log warn; $_->{http}")->reload for @nodes;
    my $node = $nodes[0];
    my $script = $node->write_file('wrk.lua', $SCRIPT);
    my @pin = -e '/sys/devices/system/cpu/cpu1' ? qw(taskset -c 1) : ();
    my %samples;
    for my $round (0 .. $rounds) {
        for my $place (qw(none own shared refused-own refused-shared)) {
            my ($worker) = $node->workers;
            my $before = cpu_ns($worker);
            my $said = qx(@pin wrk -t1 -c16 -d${seconds}s -s $script http://127.0.0.1:@{[ $node->port ]} -- /$place $keys 2>&1);
            my $cpu = cpu_ns($worker) - $before;
            my ($requests, $micros) = $said =~ /^RESULT (\d+) (\d+)$/m or die "wrk on /$place said: $said\n";
            next unless $round;    # the first is for the caches
            push @{ $samples{$place}{rate} }, $requests * 1e6 / $micros;
            push @{ $samples{$place}{cpu} },  $cpu / 1000 / $requests;
        }
    }
    my $out = "### Cost\n\nOne worker, wrk with 16 connections kept alive on the other core, a file of 7 bytes, $keys keys in turn at random. A second node is\n"
        . "connected and takes all that is shared; it and the helper threads use these two cores as well.\n\n"
        . row('limit_req', 'requests/s', "worker's processor time per request, us", 'times that without sync', 'to reach') . row(('---') x 5);
    for ([ none => 'none' ], [ own => 'admitted, nginx\'s own' ], [ shared => 'admitted, sync', 'own' ], [ 'refused-own' => 'refused, nginx\'s own' ], [ 'refused-shared' => 'refused, sync', 'refused-own' ]) {
        my ($place, $label, $to) = @$_;
        my $own = $samples{$place};
        $out .= row($label, with_spread($own->{rate}), with_spread($own->{cpu}), $to ? with_spread([ ratio($own->{rate}, $samples{$to}{rate}) ]) : '', $to ? $TARGET : '');
    }
    end_cluster();
    return $out;
}

# How many keys fit, of the four bytes that $binary_remote_addr has.
sub space {
    my (%given) = @_;
    my $count = $given{quick} ? 20_000 : 60_000;
    my $zones = 'limit_req_zone $arg_k zone=own:1m rate=1r/m; limit_req_zone $arg_k zone=shared:1m rate=1r/m sync;';
    my ($node) = cluster(1, "$zones server { listen 127.0.0.1:%%PORT%%; location /api { api; }
        limit_req_dry_run on; location /own { limit_req zone=own; alias %%PREFIX%%/page; } location /shared { limit_req zone=shared; alias %%PREFIX%%/page; } }");
    my %held;
    for my $place (qw(own shared)) {
        my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $node->port) or die $!;
        # Four letters each; each key once, and then from the last one back until one isn't known any more.
        my $key = sub { my ($n) = @_; return join '', map { chr 97 + int($n / 26**$_) % 26 } 0 .. 3 };
        for (my $at = 0; $at < $count; $at += 100) {
            print {$socket} join '', map { "HEAD /$place?k=" . $key->($_) . " HTTP/1.1\r\nHost: a\r\n\r\n" } $at .. $at + 99;
            my ($bytes, $seen) = ('', 0);
            while ($seen < 100) { sysread $socket, $bytes, 65_536, length $bytes or die "closed\n"; $seen = () = $bytes =~ /\r\n\r\n/g }
        }
        my ($slab) = $node->get("/api/9/slabs/$place")->json;
        my $slots = $slab->{slots};
        my ($size) = sort { $slots->{$b}{used} <=> $slots->{$a}{used} } keys %$slots;
        $held{$place} = [ $slots->{$size}{used}, $size ];
    }
    end_cluster();
    my $out = "### Space\n\nA zone of 1 MiB and keys of 4 bytes, as \$binary_remote_addr has them, more than fit. With `sync` a node holds a record for each node that\n"
        . "admits requests of the key; this is one of them.\n\n" . row('zone', 'keys', 'bytes of the block', 'bytes of the zone for each') . row(('---') x 4);
    $out .= row($_->[1], $held{ $_->[0] }[0], $held{ $_->[0] }[1], figure((1 << 20) / ($held{ $_->[0] }[0] || 1))) for [ own => 'nginx\'s own' ], [ shared => 'sync' ];
    return $out;
}

# A million keys, and more than there is room for.
sub million {
    my (%given) = @_;
    my $held  = $given{quick} ? 100_000 : 1_000_000;
    my $count = 1.3 * $held;
    # MiB of memory in which so many find room.
    my %size = (own => int(0.128 * $held / 1000), shared => int(0.092 * $held / 1000));
    my $folder = File::Temp->newdir('zonemesh-limits-XXXXXX', TMPDIR => 1);
    chmod 0755, "$folder";
    my ($node) = cluster(1, "limit_req_zone \$arg_k zone=own:$size{own}m rate=1r/m; limit_req_zone \$arg_k zone=shared:$size{shared}m rate=1r/m sync;
        limit_req_dry_run on; limit_req_log_level info; add_header X-Status \$limit_req_status;
        server { listen 127.0.0.1:%%PORT%%; location /api { api; } location = /own { limit_req zone=own; alias %%PREFIX%%/page; }
        location = /shared { limit_req zone=shared; alias %%PREFIX%%/page; } }", measured => ZoneMesh::Bench::Turns::shim("$folder"));
    $node->configure(http => "error_log logs/error.log warn; $node->{http}")->reload;
    my $out = "### A million keys\n\nKeys of 8 bytes, " . figure($count) . " in all, each asked for once, in a zone in which about " . figure($held)
        . " find room: rates while there is room and\nwhile keys are given up for others, and the longest turn of the worker's event loop meanwhile (processor time; 16 requests may be\nin one). "
        . "Then which keys are still known: of the last nine tenths of those that the zone holds, and of those that came a tenth before them.\n\n"
        . row('zone', 'MiB', 'keys held', 'requests/s with room', 'longest turn, ms', 'requests/s when full', 'longest turn, ms', 'known of the last', 'known of those before') . row(('---') x 9);
    for ([ own => 'nginx\'s own' ], [ shared => 'sync' ]) {
        my ($place, $label) = @$_;
        my $measure = sub {
            my ($from, $to) = @_;
            ZoneMesh::Bench::Turns::reset_figures($node);
            my $began = time;
            ask($node, $place, $from, $to);
            my $took = time - $began;
            return (figure(($to - $from) / $took), sprintf '%.2f', ZoneMesh::Bench::Turns::figures($node)->{longest} / 1e6);
        };
        my @room = $measure->(0, int $held * 0.6);
        ask($node, $place, int $held * 0.6, int $held * 1.1);
        my @full = $measure->(int $held * 1.1, $count);
        my $slots = $node->get("/api/9/slabs/$place")->json->{slots};
        my ($kept) = sort { $b <=> $a } map { $_->{used} } values %$slots;
        # Those that were asked for last are looked at first: who isn't known takes another's place.
        my $known = sub { my ($from) = @_; my $of = int $held / 500; return sprintf '%.1f %%', 100 * ask($node, $place, $from, $from + $of) / $of };
        my @known = map { $known->(int $count - $_ * $kept) } 0.9, 1.1;
        $out .= row($label, $size{$place}, figure($kept), @room, @full, @known);
        print STDERR "bench: a million keys, $label: @room, @full, @known\n";
    }
    end_cluster();
    return $out;
}

# Asks for keys by their numbers; how many of them were known.
sub ask {
    my ($node, $place, $from, $to) = @_;
    my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $node->port) or die $!;
    my $known = 0;
    for (my $at = $from; $at < $to; $at += 16) {
        my $last = $at + 15 < $to ? $at + 15 : $to - 1;
        print {$socket} map { sprintf "HEAD /$place?k=%08x HTTP/1.1\r\nHost: a\r\n\r\n", $_ } $at .. $last;
        my $bytes = '';
        until ((() = $bytes =~ /\r\n\r\n/g) > $last - $at) { sysread $socket, $bytes, 65_536, length $bytes or die "closed\n" }
        $known += () = $bytes =~ /^X-Status: REJECTED/mg;
    }
    return $known;
}

# How long it takes until what one node admits is known to another.
sub delay {
    my (%given) = @_;
    my ($one, $two) = cluster(2, 'limit_req_zone $arg_k zone=z:1m rate=1r/m sync;
        server { listen 127.0.0.1:%%PORT%%; location /api { api; } location /k { limit_req zone=z; alias %%PREFIX%%/page; } }');
    my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $two->port) or die $!;
    my $held = sub {
        print {$socket} "GET /api/9/stream/zone_sync?fields=zones HTTP/1.1\r\nHost: a\r\n\r\n";
        my $bytes = '';
        sysread $socket, $bytes, 65_536, length $bytes or die "closed\n" until $bytes =~ /"records_total":(\d+)/;
        return $1;
    };
    my @millis;
    for my $n (1 .. ($given{quick} ? 20 : 200)) {
        my $before = $held->();
        $one->get("/k?k=$n");
        my $admitted = time;
        my $until = $admitted + 5;
        1 until $held->() > $before || time > $until;
        push @millis, (time - $admitted) * 1000;
    }
    end_cluster();
    return "### Delay\n\nFrom the answer to a request on one node until the other holds a record of it, asked again and again over HTTP: "
        . with_spread(\@millis) . ' ms, the longest of ' . @millis . ': ' . figure((sort { $b <=> $a } @millis)[0]) . " ms.\n";
}

# What clusters admit.
sub accuracy {
    my (%given) = @_;
    my $seconds = $given{quick} ? 2 : $SECONDS;
    my @cases;
    for my $count ($given{quick} ? (2, 3) : (2 .. 5)) {
        for my $rate ($given{quick} ? (100) : (10, 100, 1000)) {
            push @cases, map { [ $count, $rate, $_ ] } $given{quick} ? 'evenly' : ('evenly', 'on one', 'moving');
        }
    }
    my $out = "### Accuracy\n\nOffered for $seconds s: $TIMES times the rate, one key, spaced evenly. \"Moving\" goes to the next node each half second. To reach: at least the\n"
        . "rate, at most 1.05 times the rate, and the burst, and one for each node.\n\n"
        . row('nodes', 'rate, r/s', 'burst', 'load', 'offered', 'at least', 'admitted', 'at most') . row(('---') x 8);
    for my $case (@cases) {
        my ($count, $rate, $way) = @$case;
        my $burst = $rate >= 50 ? $rate / 5 : 10;
        my @made = cluster($count, "limit_req_zone \$arg_k zone=z:1m rate=${rate}r/s sync;
            server { listen 127.0.0.1:%%PORT%%; location /api { api; }
            location /k { limit_req zone=z burst=$burst nodelay; limit_req_log_level info; alias %%PREFIX%%/page; } }");
        my ($offered, $admitted, $took) = offered(\@made, $rate * $TIMES, $seconds, $way);
        my $allowed = $rate * $took;
        $out .= row($count, $rate, $burst, $way, $offered, sprintf('%.0f', $allowed), $admitted, sprintf('%.0f', 1.05 * $allowed + $burst + $count));
        print STDERR "bench: $count nodes, $rate r/s, $way: $admitted of $offered, $allowed allowed\n";
        end_cluster();
    }
    return $out;
}

# Sends so many requests a second, over one connection to each node: (how many, how many were admitted, seconds).
sub offered {
    my ($made, $pace, $seconds, $way) = @_;
    my @sockets = map { IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $_->port) or die $! } @$made;
    $_->blocking(0) for @sockets;
    my $select = IO::Select->new(@sockets);
    my ($sent, $answered, $admitted, $began, $end) = (0, 0, 0, time);
    while (1) {
        my $elapsed = time - $began;
        while ($sent <= $elapsed * $pace && $elapsed < $seconds) {
            my $to = $way eq 'evenly' ? $sent % @sockets : $way eq 'on one' ? 0 : int($sent / $pace * 2) % @sockets;
            syswrite $sockets[$to], "HEAD /k?k=key HTTP/1.1\r\nHost: a\r\n\r\n";
            $sent++;
        }
        last if $elapsed >= $seconds && ($answered >= $sent || $elapsed > $seconds + 5);
        $end = $elapsed if $elapsed < $seconds;
        for my $socket ($select->can_read(0.0005)) {
            sysread $socket, my $bytes, 65_536 or die "closed\n";
            # A piece of a line may be cut: what counts is the beginning of each answer.
            ${*$socket}{rest} .= $bytes;
            while (${*$socket}{rest} =~ s/^HTTP\/1\.1 (\d+).*?\r\n\r\n//s) { $answered++; $admitted++ if $1 == 200 }
        }
    }
    return ($sent, $admitted, $end);
}

1;
