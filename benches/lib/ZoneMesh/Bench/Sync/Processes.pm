package ZoneMesh::Bench::Sync::Processes;

# What HAProxy and Redis have in common here: programs in the foreground, numbered from 1, each with a folder's files.
# A class derived from this has `command($n)`, and `place($n)`: where the driver reaches that server.

use strict;
use warnings;

use File::Temp ();
use POSIX ();
use Time::HiRes qw(sleep);

use ZoneMesh ();
use ZoneMesh::Node ();

sub new {
    my ($class, $count) = @_;
    my $self = bless { count => $count, folder => File::Temp->newdir('zonemesh-bench-XXXXXX', TMPDIR => 1), pids => {} }, $class;
    $self->{ports} = [ map { ZoneMesh::port() } 0 .. $count ];
    $self->prepare;
    return $self;
}

sub prepare { return }

sub start {
    my ($self, $n) = @_;
    my $pid = fork // die "fork: $!";
    if (!$pid) {
        ZoneMesh::Node::die_with_parent();
        open STDIN,  '<',  '/dev/null';
        open STDOUT, '>>', "$self->{folder}/$n.log";
        open STDERR, '>&', \*STDOUT;
        exec $self->command($n) or POSIX::_exit(127);
    }
    $self->{pids}{$n} = $pid;
    return;
}

sub stop {
    my ($self, $n) = @_;
    my $pid = delete $self->{pids}{$n} or return;
    kill TERM => $pid;
    waitpid $pid, 0;
    return;
}

sub pids { my ($self, $n) = @_; return $self->{pids}{$n} }

sub DESTROY {
    my ($self) = @_;
    local ($?, $@, $!);
    kill KILL => $_ for values %{ $self->{pids} };
    waitpid $_, 0 for values %{ $self->{pids} };
    return;
}

1;
