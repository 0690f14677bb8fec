package ZoneMesh::Memory;

# The memory of a key-value zone as a process has it mapped: to look at what no request shows, and to damage it.
#
#     my ($zone) = ZoneMesh::Memory->zones($node->pid);    # the master maps what the workers do
#     $zone->write(8, "\xff");                              # offsets count from the zone's beginning
#     $zone->holds_word(ZoneMesh::Memory::lock_word($pid)); # a lock that this process holds
#     $zone->lock(origins => $pid);                        # as if this process held it

use strict;
use warnings;
no warnings 'portable';    # addresses have 64 bits

use Fcntl qw(O_RDWR SEEK_SET);
use ZoneMesh::Node;

my $begins = 'ZMSHZONE';
my $page   = 4096;
# Locks are in the header and behind it, in the shards.
my $locks = 64 * 1024;

# All zones of a process, in the order of their addresses.
sub zones {
    my ($class, $pid) = @_;
    my @zones;
    sysopen my $memory, "/proc/$pid/mem", O_RDWR or die "/proc/$pid/mem: $!";
    for (split /\n/, ZoneMesh::Node::slurp("/proc/$pid/maps")) {
        my ($start, $end) = m{^([0-9a-f]+)-([0-9a-f]+) rw-s .*/dev/zero} or next;
        ($start, $end) = (hex $start, hex $end);
        for (my $at = $start; $at < $end; $at += $page) {
            my $zone = bless { memory => $memory, at => $at, len => $end - $at }, $class;
            next if $zone->read(0, length $begins) ne $begins;
            push @zones, $zone;
            last;
        }
    }
    return @zones;
}

# How many pieces of shared memory a process has mapped.
sub mappings { return scalar grep { m{ rw-s .*/dev/zero} } split /\n/, ZoneMesh::Node::slurp("/proc/$_[1]/maps") }

sub read {    ## no critic: a method
    my ($self, $offset, $len) = @_;
    sysseek $self->{memory}, $self->{at} + $offset, SEEK_SET or die "seek: $!";
    $len = $self->{len} - $offset if $len > $self->{len} - $offset;
    (sysread $self->{memory}, my $bytes, $len) == $len or die "read: $!";
    return $bytes;
}

sub write {    ## no critic: a method
    my ($self, $offset, $bytes) = @_;
    sysseek $self->{memory}, $self->{at} + $offset, SEEK_SET or die "seek: $!";
    (syswrite $self->{memory}, $bytes) == length $bytes or die "write: $!";
    return;
}

# Whether some lock of the zone has this word.
sub holds_word {
    my ($self, $word) = @_;
    return scalar grep { $_ == $word } unpack 'Q<*', $self->read(0, $locks);
}

# Where some locks are: see src/store/layout.
my %at = (origins => 320, first_shard => 1216);

# Gives a lock that nobody holds to a process that is to seem stopped in the midst of a change, as long as it lives.
sub lock {    ## no critic: a method
    my ($self, $which, $pid) = @_;
    ZoneMesh::wait_for(sub { $self->read($at{$which}, 8) eq "\0" x 8 }, 10, 0.001) or die "the lock doesn't come free";
    return $self->write($at{$which}, pack 'Q<', lock_word($pid));
}

# What a lock holds while it is this process's: its number, and the low half of the time it was started at.
sub lock_word {
    my ($pid) = @_;
    my ($fields) = ZoneMesh::Node::slurp("/proc/$pid/stat") =~ /^\d+ \(.*\) (.*)/s or return 0;
    return $pid << 32 | (split ' ', $fields)[19] & 0xffff_ffff;
}

1;
