package ZoneMesh::Bench::Scaling;

# What a full mesh costs. `scripts/bench mesh`: messages, bytes and memory of up to 255 nodes come from tests/sync_scale, where
# real stores and sessions run in virtual time. `scripts/bench scaling`: processor, delay and bytes on the wire of up to 10 real
# nodes on loopback. Each writes its part of docs/scaling.md.

use strict;
use warnings;

use JSON::PP ();
use Time::HiRes qw(sleep time);

use ZoneMesh ();
use ZoneMesh::Bench::Report;
use ZoneMesh::Bench::Sync ();
use ZoneMesh::Bench::Sync::Zonemesh;

sub mesh {
    my (%given) = @_;
    my ($began, $before) = (time, busy());
    my @simulated = simulated(2, 5, 10, 20, 50, $given{quick} ? () : (100, 255));
    my $text = machine($before, $began, %given) . simulated_page(@simulated);
    print $text;
    return if $given{dry};
    write_file('docs/scaling.svg', chart(@simulated));
    publish(mesh => 'Counted in virtual time', $text, 'docs/scaling.md');
    return;
}

sub run {
    my (%given) = @_;
    ZoneMesh::Bench::Sync::alone(%given);
    my %size = $given{quick}
        ? (real => [ 2, 5 ], rounds => 1, updates => 100, records => 20_000, settle => 4, idle => 3)
        : (real => [ 2, 5, 10 ], rounds => 3, updates => 500, records => 100_000, settle => 12, idle => 15);
    my ($began, $before) = (time, busy());
    my %real = real(%size);
    my $text = machine($before, $began, %given) . real_page(\%size, %real);
    print $text;
    publish(scaling => 'Measured on real nodes', $text, 'docs/scaling.md') unless $given{dry};
    return;
}

sub machine {
    my ($before, $began, %given) = @_;
    return circumstances(load => $before, versions => revision(), command => $given{command}, began => $began);
}

# What tests/sync_scale counts of meshes of these sizes, each in a process of its own.
sub simulated {
    my (@sizes) = @_;
    my $said = qx(cargo test --locked --no-default-features --test sync_scale --no-run 2>&1);
    my ($program) = $said =~ /Executable .*\((\S+)\)/ or die "cargo test --no-run said:\n$said";
    return map {
        print STDERR "bench: $_ nodes in virtual time\n";
        local $ENV{ZONEMESH_SCALE} = $_;
        my $figures = qx($program);
        die "$program with $_ nodes failed\n" if $?;
        JSON::PP->new->decode($figures);
    } @sizes;
}

# {nodes => {what => [samples]}}
sub real {
    my (%size) = @_;
    $ZoneMesh::Bench::Sync::driver = ZoneMesh::Bench::Sync::driver();
    my %out;
    for my $round (1 .. $size{rounds}) {
        for my $nodes (@{ $size{real} }) {
            print STDERR "bench: $nodes nodes, round $round\n";
            my %of = cluster($nodes, %size);
            push @{ $out{$nodes}{$_} }, $of{$_} for keys %of;
        }
    }
    return %out;
}

# All that is measured of one cluster, from its start to its end.
sub cluster {
    my ($nodes, %size) = @_;
    my $system = ZoneMesh::Bench::Sync::Zonemesh->new($nodes, '16m');
    $system->start($_) for 1 .. $nodes;
    drive('fill', $system->place(1), 1);
    drive('await', $system->place($_), 1) for 2 .. $nodes;
    $system->settle($nodes);

    my ($records, $began, %of) = ($size{records}, time);
    drive('fill', $system->place(1), $records);
    drive('await', $system->place($_), $records) for 2 .. $nodes;
    $of{bulk} = $records / (time - $began);

    # The last one leaves, and another begins in its place.
    $system->stop($nodes);
    my $bytes = ZoneMesh::Bench::Sync::wire();
    $began = time;
    $system->start($nodes);
    drive('await', $system->place($nodes), $records);
    @of{qw(join_seconds join_bytes)} = (time - $began, (ZoneMesh::Bench::Sync::wire() - $bytes) / $records);
    $system->connected($nodes);
    sleep 1;

    my @others = map { $system->place($_) } 2 .. $nodes;
    for ([ one => $others[0] ], [ all => @others ]) {
        my ($name, @to) = @$_;
        my @samples = sort { $a <=> $b } @{ drive('all', $size{updates}, $system->place(1), @to)->{samples} };
        @of{ "$name.p50", "$name.p99" } = map { $samples[ @samples * $_ ] } 0.5, 0.99;
    }
    my @pids = map { ($system->pids($_))[1] } 1 .. 2;
    my @cpu  = (agent_ns($pids[0]), main_ns($pids[1]));
    drive('all', $size{updates}, $system->place(1));
    sleep 0.2;
    @of{qw(send receive)} = map { $_ / 1000 / $size{updates} } agent_ns($pids[0]) - $cpu[0], main_ns($pids[1]) - $cpu[1];

    # New sessions compare what both have once; after that they are at rest.
    sleep $size{settle};
    my $cpu = sub { my $sum = 0; $sum += ZoneMesh::Bench::Sync::cpu($system->pids($_)) for 1 .. $nodes; return $sum };
    my ($wire, $before) = (ZoneMesh::Bench::Sync::wire(), $cpu->());
    sleep $size{idle};
    @of{qw(idle_cpu idle_bytes)} = (($cpu->() - $before) / 1e9 / $size{idle} / $nodes, (ZoneMesh::Bench::Sync::wire() - $wire) / $size{idle} / $nodes);
    my ($private) = slurp("/proc/$pids[0]/status") =~ /^RssAnon:\s+(\d+)/m;
    $of{memory} = $private / 1024;
    $system->stop($_) for 1 .. $nodes;
    return %of;
}

sub drive { my ($what, @words) = @_; return ZoneMesh::Bench::Sync::drive($what, 'zonemesh', @words) }

# Nanoseconds of processor time: of a worker's main thread, and of its others, which are the agent.
sub main_ns  { my ($pid) = @_; return ns("/proc/$pid/task/$pid/schedstat") }
sub agent_ns { my ($pid) = @_; my $sum = 0; $sum += ns($_) for grep { !m{/task/$pid/} } glob "/proc/$pid/task/*/schedstat"; return $sum }
sub ns       { return (split ' ', slurp($_[0]))[0] // 0 }

sub simulated_page {
    my (@all) = @_;
    my $out = "\nReal stores and sessions, 1 ms between any two nodes, every default, one zone of 1 MiB with $all[0]{records} records of 16 + 16 bytes, which all\n"
        . "nodes but the last have written. Bytes are those of the protocol, without TLS and TCP. Counts are the same in each run.\n\n"
        . "![bytes of idle nodes](scaling.svg)\n\n";
    $out .= row('nodes', 'connections', 'one update: messages', 'bytes', 'on all after, ms', 'an idle node sends, bytes/s', 'all together, bytes/s',
        'each writes once a second: a node sends, bytes/s', 'of that HAVE') . row(('---') x 9);
    for my $of (@all) {
        my ($nodes, $update) = @$of{qw(nodes update)};
        my $rate = sub { my ($what, $kind) = @_; return $of->{$what}{$kind}[1] * 1000 / $of->{"${what}_ms"} };
        $out .= row($nodes, $of->{links}, @{ $update->{all} }, $of->{visible_ms}, figure($rate->(idle => 'all') / $nodes), figure($rate->(idle => 'all')),
            figure($rate->(busy => 'all') / $nodes), figure($rate->(busy => 'have') / $nodes));
    }
    $out .= "\n" . row('nodes', 'to join: bytes of records', 'bytes of all else', 'records are there after, ms', 'each has told each what it has of all after, s',
        'memory of a connection, both ends, bytes', 'time of the sender for an update and peer, us', 'of a receiver, us') . row(('---') x 8);
    for my $of (@all) {
        my ($records, $all) = map { $of->{join}{$_}[1] } qw(records all);
        $out .= row($of->{nodes}, $records, $all - $records, $of->{joined_ms}, figure($of->{told_ms} / 1000), $of->{session_bytes},
            map { figure($of->{$_} / 1000) } qw(send_ns receive_ns));
    }
    return "$out\nOf 2 nodes the one that is there is alone, and has joined nobody: it is asked for all once `zone_sync_timeout` has brought no better one.\n"
        . "Times are medians of real microseconds on this machine, without system calls and TLS; all nodes share its caches.\n";
}

sub real_page {
    my ($size, %real) = @_;
    my $out = "\nnginx with one worker each, mutual TLS, every default, on loopback, all on the cores of this machine; a zone of 16 MiB. Bytes are those of the\n"
        . "device, with all headers. An update is visible when a read over HTTP shows it; \"on all\" reads one node after the other, and so has the time of that many\n"
        . "reads in it. $size->{updates} updates, $size->{records} records of 16 + 16 bytes for the others.\n\n";
    my @columns = (
        [ 'visible on one other: p50, us', 'one.p50' ], [ 'p99, us', 'one.p99' ], [ 'on all: p50, us', 'all.p50' ], [ 'p99, us', 'all.p99' ],
        [ "sender's agent, us an update", 'send' ], [ "receiver's worker, us an update", 'receive' ],
    );
    my @more = (
        [ 'many records: records/s on all', 'bulk' ], [ 'to join, s', 'join_seconds' ], [ 'bytes a record', 'join_bytes' ],
        [ 'idle: % of a core a node', 'idle_cpu', 100 ], [ 'bytes/s a node', 'idle_bytes' ], [ "a worker's private memory, MiB", 'memory' ],
    );
    for my $table (\@columns, \@more) {
        $out .= row('nodes', map { $_->[0] } @$table) . row(('---') x (1 + @$table));
        for my $nodes (sort { $a <=> $b } keys %real) {
            $out .= row($nodes, map { my ($scale, $of) = ($_->[2] // 1, $real{$nodes}{ $_->[1] }); with_spread([ map { $_ * $scale } @$of ]) } @$table);
        }
        $out .= "\n";
    }
    return $out;
}

sub chart {
    my (@all) = @_;
    my @bars = map { my $rate = $_->{idle}{all}[1] * 1000 / $_->{idle_ms} / $_->{nodes}; [ "$_->{nodes} nodes, one zone", ($rate) x 3 ] } @all;
    return bars('An idle full mesh', 'bytes a second that each node sends', [ '', @bars ]);
}

1;
