package ZoneMesh::Pause;

# Stops one thread of a process while the others go on, as no signal can: by ptrace.
#
#     my $pause = ZoneMesh::Pause->new($worker, 'zonemesh') or plan skip_all => ZoneMesh::Pause->why_not;
#     $pause->reap while ...;    # must be called now and then if the process may end meanwhile
#     $pause->resume;
#
# The thread goes on by itself when the test ends, however that ends.

use strict;
use warnings;

use Config;

my $WALL  = 0x4000_0000;
my %TRACE = (x86_64 => 101, aarch64 => 117);
my ($SEIZE, $INTERRUPT, $DETACH) = (0x4206, 0x4207, 17);

my $why_not = '';
sub why_not { return $why_not }

# The threads of a process that have this name.
sub threads {
    my ($pid, $name) = @_;
    return grep { ZoneMesh::Node::slurp("/proc/$pid/task/$_/comm") eq "$name\n" } map { m{(\d+)$} } glob "/proc/$pid/task/*";
}

sub new {
    my ($class, $pid, $name) = @_;
    my ($machine) = $Config{archname} =~ /^(x86_64|aarch64)/;
    my ($thread) = threads($pid, $name);
    $why_not = !$machine ? 'ptrace: not known for this processor' : !$thread ? "process $pid has no thread $name" : '';
    return if $why_not;
    my $self = bless { call => $TRACE{$machine}, thread => 0 + $thread }, $class;
    for my $what ($SEIZE, $INTERRUPT) {
        next if $self->trace($what);
        $why_not = "ptrace: $!";
        return;
    }
    # Until it is stopped indeed.
    waitpid $thread, $WALL;
    return $self;
}

sub trace { my ($self, $what) = @_; return syscall($self->{call}, $what, $self->{thread}, 0, 0) == 0 }

# Lets the thread go on.
sub resume { my ($self) = @_; return $self->trace($DETACH) }

# If the process has ended: who traces a thread has to take notice, or the process stays a zombie.
sub reap { my ($self) = @_; return waitpid($self->{thread}, $WALL | 1) == $self->{thread} }

1;
