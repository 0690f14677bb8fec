package ZoneMesh::Bench::Sync::Zonemesh;

# Nodes of nginx with zonemesh, one worker each, over mutual TLS; nothing is set that has a default.

use strict;
use warnings;

use ZoneMesh ();
use ZoneMesh::Bench::Report;
use ZoneMesh::Cluster ();

sub name { return 'zonemesh' }

# `size` is that of the zone.
sub new {
    my ($class, $count, $size) = @_;
    $size //= '112m';
    my @nodes = ZoneMesh::Cluster::cluster(
        $count, not_started => 1, workers => 1, commands => 'unix:%%PREFIX%%/http.sock', tls => ZoneMesh::authority('benchmark'), sync => '',
        zones => "keyval_zone zone=one:$size timeout=1h sync;",
        http  => 'keepalive_requests 1000000000; client_max_body_size 128m;',
    );
    return bless { nodes => [ undef, @nodes ] }, $class;
}

sub start { my ($self, $n) = @_; $self->{nodes}[$n]->start; return }

# Waits until the first of them have joined: the nodes of a cluster that is younger than zone_sync_timeout still wait for
# somebody who knows more. One alone has nobody to join.
sub settle {
    my ($self, $count) = @_;
    return if $count < 2;
    for my $node (@{ $self->{nodes} }[ 1 .. $count ]) {
        ZoneMesh::wait_for(sub { $node->get('/api/9/zonemesh/zones/one')->json->{joined} }, 30) or die $node->name . " hasn't joined after 30 s\n";
    }
    return;
}

# Waits until each of the first of them is connected to all others.
sub connected { my ($self, $count) = @_; ZoneMesh::Cluster::connected($count - 1, @{ $self->{nodes} }[ 1 .. $count ]); return }

sub stop { my ($self, $n) = @_; $self->{nodes}[$n]->term(5) if $self->{nodes}[$n]{pid}; return }

sub place { my ($self, $n) = @_; return $self->{nodes}[$n]->prefix . '/http.sock' }

sub pids { my ($self, $n) = @_; return ($self->{nodes}[$n]->pid, $self->{nodes}[$n]->workers) }

sub version { return revision() }

1;
