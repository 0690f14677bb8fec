package ZoneMesh::Net;

# Machines of their own for nodes: network namespaces, each with an address, on one switch. Links can be taken down and
# packets dropped, so that no side sees a connection end.
#
#     my $net = ZoneMesh::Net->new(3) or plan skip_all => ZoneMesh::Net->why_not;
#     my @nodes = $net->cluster(tls => authority());
#     $net->link(1 => 'down');    # pulls the plug of machine 1; 'up' again
#     $net->drop(1 => 2);         # what 1 sends doesn't reach 2; the other way it does
#     $net->heal;                 # all links up, nothing dropped
#     $net->write_until(sub { !$net->sees(1, 1) });    # on all machines, all the while
#     $net->all_agree('rejoined');
#
# A namespace lives as long as a process that this starts in it, which ends with the test, however that ends. Nothing is
# made in the network that the test itself runs in.

use strict;
use warnings;

use Config;
use POSIX ();

use ZoneMesh ();
use ZoneMesh::Cluster ();
use ZoneMesh::Node ();

# System calls by number: core Perl has no names for them.
my %CALLS = (x86_64 => { unshare => 272, setns => 308 }, aarch64 => { unshare => 97, setns => 268 });
my $CLONE_NEWNET = 0x4000_0000;

my $why_not = '';
sub why_not { return $why_not }

# Machines 1 to `count`; nothing if namespaces can't be had here. All else that goes wrong is an error: nobody is to think that what
# these tests show was shown.
sub new {
    my ($class, $count) = @_;
    my $self = bless { owner => $$, count => $count, holders => [] }, $class;
    if ($> != 0) {
        $why_not = 'network namespaces take root';
        return;
    }
    $self->make_networks or return;
    $self->build;
    return $self;
}

sub address { return "10.77.0.$_[1]" }

# A node for each machine, sharing zone `one`, connected to each other.
sub cluster {
    my ($self, %given) = @_;
    my $port    = ZoneMesh::port();
    my $servers = join "\n", map { "zone_sync_server " . $self->address($_) . ":$port;" } 1 .. $self->{count};
    my @nodes;
    for my $n (1 .. $self->{count}) {
        my ($certificate, $key) = $given{tls}->issue("machine$n", ip => [ $self->address($n) ]);
        my $tls = ZoneMesh::Cluster::tls_lines($given{tls}->file, $certificate, $key);
        push @nodes, ZoneMesh::node(
            name => "machine$n", workers => 2, net => sub { $self->within($n, $_[0]) },
            stream => 'server { listen ' . $self->address($n) . ":$port ssl; zone_sync; $servers $tls $ZoneMesh::Cluster::QUICK }",
            http   => 'keyval_zone zone=one:4m sync;
                server { listen 127.0.0.1:%%PORT%%; location /api { api write=on; } }',
        )->start;
    }
    $self->{authority} = $given{tls};    # its files live as long as the nodes
    ZoneMesh::Cluster::connected($self->{count} - 1, @nodes);
    ($self->{nodes}, $self->{written}, $self->{number}) = (\@nodes, 0, 0);
    return @nodes;
}

# Adds keys on every machine in turn until the condition holds; gives whether it came true.
sub write_until {
    my ($self, $condition, $seconds) = @_;
    return ZoneMesh::wait_for(
        sub {
            for my $node (@{ $self->{nodes} }) {
                my $number = $self->{number}++;
                my $status = $node->add('one', 'by ' . $node->name . ": $number", "value $number");
                Test::More::fail($node->name . " refused a write: $status") if $status != 201;
                $self->{written}++;
            }
            return $condition->();
        },
        $seconds // 10
    );
}

# How many keys write_until has added; counts anew from what is given.
sub written { my ($self, $from) = @_; $self->{written} = $from if defined $from; return $self->{written} }

# Test: what was lost comes back, and every machine is written to until all are connected again.
sub rejoin_under_writes {
    my ($self, $name) = @_;
    local $Test::Builder::Level = $Test::Builder::Level + 1;
    my $before = $self->{written};
    $self->heal;
    my $joined = $self->write_until(sub { !grep { !$self->sees($_, $self->{count} - 1) } 1 .. $self->{count} }, 20);
    return Test::More::ok($joined && $self->{written} > $before, "$name: all are connected again, written to meanwhile");
}

# Whether a machine is connected to so many others.
sub sees { my ($self, $n, $others) = @_; return $self->{nodes}[ $n - 1 ]->zone_sync->{status}{nodes_online} == $others }

# Tests: all are connected, hold the same, and every key that write_until added is there; gives the zone.
sub all_agree {
    my ($self, $name) = @_;
    local $Test::Builder::Level = $Test::Builder::Level + 1;
    my @nodes = @{ $self->{nodes} };
    ZoneMesh::Cluster::connected($self->{count} - 1, @nodes);
    my $zone = ZoneMesh::Cluster::same_everywhere(\@nodes, 'one', "$name: all hold the same", 20);
    Test::More::is(scalar(grep { /^by / } keys %$zone), $self->{written}, "$name: every write that was acknowledged is there");
    return $zone;
}

# Pulls the plug of a machine, or puts it in again.
sub link {
    my ($self, $n, $state) = @_;
    $self->in_switch(sub { run('ip', 'link', 'set', "port$n", $state) });
    return;
}

# Packets from one machine to another are lost.
sub drop {
    my ($self, $from, $to) = @_;
    $self->within($to, sub { run(qw(nft add rule inet test input ip saddr), $self->address($from), 'drop') });
    return;
}

sub heal {
    my ($self) = @_;
    for my $n (1 .. $self->{count}) {
        $self->link($n, 'up');
        $self->within($n, sub { run(qw(nft flush chain inet test input)) });
    }
    return;
}

# Runs code on a machine: what it connects to, and what it starts, is there.
sub within {
    my ($self, $n, $code) = @_;
    return in_network_of($self->{holders}[$n], $code);
}

sub in_switch { return in_network_of($_[0]{holders}[0], $_[1]) }

sub in_network_of {
    my ($pid, $code) = @_;
    open my $home,  '<', '/proc/self/ns/net' or die "/proc/self/ns/net: $!";
    open my $there, '<', "/proc/$pid/ns/net" or die "/proc/$pid/ns/net: $!";
    call('setns', fileno $there, $CLONE_NEWNET);
    my @result = eval { wantarray ? $code->() : scalar $code->() };
    my $error = $@;
    call('setns', fileno $home, $CLONE_NEWNET);
    die $error if $error;
    return wantarray ? @result : $result[0];
}

# One for the switch and one for each machine; false if the system refuses that.
sub make_networks {
    my ($self) = @_;
    for (0 .. $self->{count}) {
        my ($pid, $refused) = hold();
        if ($pid) {
            push @{ $self->{holders} }, $pid;
            next if eval { in_network_of($pid, sub { 1 }) };
            $refused = $@;
        }
        ($why_not = "no network namespaces here: $refused") =~ s/\s+$//;
        return 0;
    }
    return 1;
}

sub build {
    my ($self) = @_;
    for my $program (qw(ip nft)) {
        die "$program is missing: see scripts/packages.txt\n" unless grep { -x "$_/$program" } split /:/, "$ENV{PATH}:/usr/sbin:/sbin";
    }
    $self->in_switch(sub { run(qw(ip link add switch type bridge)); run(qw(ip link set switch up)) });
    for my $n (1 .. $self->{count}) {
        my $pid = $self->{holders}[$n];
        $self->in_switch(sub {
            run('ip', 'link', 'add', "port$n", qw(type veth peer name plug netns), $pid);
            run('ip', 'link', 'set', "port$n", qw(master switch up));
        });
        $self->within($n, sub {
            run(qw(ip link set lo up));
            run(qw(ip address add), $self->address($n) . '/24', qw(dev plug));
            run(qw(ip link set plug up));
            run(qw(nft add table inet test));
            run('nft', 'add chain inet test input { type filter hook input priority 0; }');
        });
    }
    return;
}

# A process in a network of its own, for as long as this one lives: (its number, or why there is none).
sub hold {
    pipe my $reader, my $writer or die "pipe: $!\n";
    my $pid = fork // die "fork: $!\n";
    if (!$pid) {
        close $reader;
        ZoneMesh::Node::die_with_parent();
        my $ok = eval { call('unshare', $CLONE_NEWNET); 1 };
        syswrite $writer, $ok ? 'ok' : $@;
        close $writer;
        $SIG{TERM} = 'DEFAULT';
        sleep 3600 while $ok;
        POSIX::_exit(0);
    }
    close $writer;
    my $said = do { local $/; <$reader> } // '';
    return $pid if $said eq 'ok';
    waitpid $pid, 0;
    return (undef, $said);
}

sub call {
    my ($name, @arguments) = @_;
    my ($machine) = $Config{archname} =~ /^(x86_64|aarch64)/ or die "$name: not known for this processor\n";
    syscall($CALLS{$machine}{$name}, @arguments) == 0 or die "$name: $!\n";
    return;
}

sub run {
    my (@command) = @_;
    open my $out, '-|', 'sh', '-c', 'exec 2>&1; PATH=$PATH:/usr/sbin:/sbin; exec "$@"', 'sh', @command or die "sh: $!\n";
    my $said = do { local $/; <$out> } // '';
    close $out or die "@command: $said\n";
    return;
}

sub DESTROY {
    my ($self) = @_;
    return if $$ != $self->{owner};
    local ($?, $@, $!);
    my @holders = @{ $self->{holders} };
    kill TERM => @holders if @holders;
    waitpid $_, 0 for @holders;
    return;
}

1;
