package ZoneMesh::Bench::Attack;

# `scripts/bench attack`: what clients of HTTP notice, and what memory it takes, while the port of zone_sync is attacked by ten
# thousand connections at once, of one kind after the other.

use strict;
use warnings;

use IO::Select;
use IO::Socket::INET;
use List::Util qw(max);
use Time::HiRes qw(sleep time);

use ZoneMesh::Bench::Report;
use ZoneMesh::Certs;
use ZoneMesh::Flood;
use ZoneMesh::Node;

my ($TARGET_TIMES, $TARGET_KIB, $TIMEOUT, $SLOTS) = (3, 64, 8, 20_000);
# Of each attack, each against a node of its own.
my $ROUNDS = 5;
# Between two requests, seconds.
my $PAUSE = 0.002;
# What, kind of ZoneMesh::Flood, over TLS, how many at once, how many begun in a second.
my @ATTACKS = (
    [ 'nothing said',                          'silent',    0, 10_000, 3_000 ],
    [ 'half a hello',                          'half',      0, 10_000, 3_000 ],
    [ 'a hello, a byte each 0.5 s',            'drip',      0, 10_000, 3_000 ],
    [ 'valid hellos of ever new nodes',        'hello',     0, 1_000,  2_000 ],
    [ 'TLS: nothing said',                     'silent',    1, 10_000, 3_000 ],
    [ 'TLS: a handshake that is not gone on with', 'handshake', 1, 10_000, 3_000 ],
);

sub run {
    my (%given) = @_;
    my $most = ZoneMesh::Flood::most_files();
    die "a process may have $most files open here; this takes $SLOTS\n" if $most < $SLOTS;
    my ($began, $load) = (time, busy());
    my @rows;
    for my $attack (@ATTACKS) {
        my ($what, $kind, $tls, $count, $rate) = @$attack;
        $_ /= 10 for $given{quick} ? ($count, $rate) : ();
        my @rounds = map {
            print STDERR "bench: $what, round $_\n";
            measured($kind, $tls, $count, $rate, $given{quick} ? 2 : 4);
        } 1 .. ($given{quick} ? 1 : $ROUNDS);
        push @rows, [ $what, together(@rounds) ];
    }
    my $machine = circumstances(load => $load, versions => revision(), command => $given{command}, began => $began);
    my $text = page(\@rows, $machine);
    print $text;
    publish(attack => 'The port of zone_sync under attack', $text) unless $given{dry};
    return;
}

# The median of each figure, but the most of `longest`, and of the ratios all of them.
sub together {
    my @rounds = @_;
    my %is;
    for my $figure (keys %{ $rounds[0] }) {
        my @all = map { $_->{$figure} } @rounds;
        $is{$figure} = $figure =~ /^times/ ? \@all
            : (grep { !defined } @all) ? undef
            : $figure eq 'longest' ? max(@all)
            : median(@all);
    }
    return \%is;
}

sub page {
    my ($rows, $machine) = @_;
    my $out = "One worker with `worker_connections $SLOTS` and `zone_sync_timeout ${TIMEOUT}s`. The attacker opens 10,000 connections within\n"
        . "seconds (hellos: 2,000 a second, without end); it runs on the same machine, in what others leave of its cores (SCHED_IDLE). A client of HTTP\n"
        . "connects anew each 2 ms and reads a key: its times are from the connecting to the answer, right before the attack, while its\n"
        . "connections come, and when all have come. To reach: p99 within $TARGET_TIMES times, below $TARGET_KIB KiB a connection, none open for longer than the timeout.\n\n"
        . $machine;
    $out .= "\n" . row('connections', 'at once', 'begun/s', 'HTTP p50, ms, before', 'when they are there', 'p99, ms, before', 'while they come', 'times', 'when they are there', 'times', 'KiB each', 'open at most, s')
        . row(('---') x 12);
    for my $row (@$rows) {
        my ($what, $is) = @$row;
        $out .= row($what, $is->{open}, $is->{rate} ? int $is->{rate} : '', map({ figure($_) } @$is{qw(p50 p50_during p99 p99_coming)}), with_spread($is->{times_coming}),
            figure($is->{p99_during}), with_spread($is->{times}), sprintf('%.1f', $is->{kib}), figure($is->{longest}));
    }
    my $said = slurp('benches/notes-attack.md');
    return "$out\n$said";
}

# One attack on a node of its own.
sub measured {
    my ($kind, $tls, $count, $rate, $seconds) = @_;
    my $node = target($tls);
    my %is = eval {
        my $until = time + $seconds;
        my ($p50, $p99) = latencies($node, sub { time >= $until });
        my $before = memory($node);
        my $comes  = $kind eq 'hello';
        my $flood  = ZoneMesh::Flood->new(port => $node->sync, kind => $kind, count => $count, rate => $rate, again => $comes, idle => 1);
        # Until all of them have come; the first are closed soon after.
        my $deadline = time + $TIMEOUT;
        my (undef, $p99_coming) = latencies($node, sub { $flood->status->{opened} >= $count || time > $deadline });
        my ($began, $from) = (time, $flood->status);
        die "only $from->{opened} of $count connections ($kind) could be opened in $TIMEOUT s\n" if $from->{opened} < $count;
        my $kib = (memory($node) - $before) / ($from->{open} || 1);
        $until = time + $seconds;
        my ($p50_during, $p99_during) = latencies($node, sub { time >= $until });
        my $rate_then = ($flood->status->{opened} - $from->{opened}) / (time - $began);
        if (!$comes) {
            $deadline = time + 2 * $TIMEOUT + 5;
            sleep 0.1 while $flood->status->{open} && time < $deadline;
        }
        my $longest = $flood->status->{open} && !$comes ? undef : $flood->status->{longest};
        $flood->end;
        (p50 => $p50, p99 => $p99, p50_during => $p50_during, p99_during => $p99_during, times => $p99_during / $p99,
            p99_coming => $p99_coming, times_coming => $p99_coming / $p99, kib => $kib,
            open => $from->{open}, rate => $comes ? $rate_then : 0, longest => $comes ? undef : $longest);
    };
    my $failed = $@;
    $node->stop;
    $node->destroy;
    die $failed if $failed;
    return \%is;
}

sub target {
    my ($tls) = @_;
    my $node = ZoneMesh::Node->new(
        port => free_port(), sync => free_port(), main => "worker_rlimit_nofile $SLOTS;", events => "worker_connections $SLOTS;",
        http => 'keyval_zone zone=one:1m sync; keyval $arg_key $value zone=one;
            server { listen 127.0.0.1:%%PORT%% backlog=4096; location /api { api write=on; } location /read { return 200 "$value"; } }',
        stream => "server { listen 127.0.0.1:%%SYNC%%; zone_sync; zone_sync_timeout ${TIMEOUT}s; }",
    );
    if ($tls) {
        my $ca = $node->{ca} = ZoneMesh::Certs->new('bench');
        my ($certificate, $key) = $ca->issue('node', ip => ['127.0.0.1']);
        $node->configure(stream => "server { listen 127.0.0.1:%%SYNC%% ssl; ssl_certificate $certificate; ssl_certificate_key $key;
            ssl_client_certificate @{[ $ca->file ]}; ssl_verify_client on; zone_sync; zone_sync_timeout ${TIMEOUT}s; }");
    }
    $node->start;
    $node->add('one', 'k', 'v') == 201 or die "no key was added\n";
    return $node;
}

sub memory { my ($node) = @_; my $sum = 0; $sum += $node->memory($_) for $node->workers; return $sum }

# Median and p99 of the time that a client needs, in milliseconds, until the condition holds. That is looked at now and then.
sub latencies {
    my ($node, $is_over) = @_;
    my @took;
    until (@took % 10 == 0 && @took && $is_over->()) {
        my $began = time;
        my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $node->port, Proto => 'tcp', Timeout => 5) or die "HTTP: $!\n";
        print {$socket} "GET /read?key=k HTTP/1.0\r\n\r\n";
        $socket->flush;
        my $answer = '';
        while (IO::Select->new($socket)->can_read(5)) { sysread($socket, $answer, 4_096, length $answer) or last }
        die "HTTP gave: $answer\n" unless $answer =~ /\r\n\r\nv\z/;
        my $now = time;
        push @took, 1000 * ($now - $began);
        sleep $PAUSE;
    }
    return map { ZoneMesh::Bench::Report::quantile($_, @took) } 0.5, 0.99;
}

1;
