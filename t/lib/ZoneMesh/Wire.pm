package ZoneMesh::Wire;

# Frames of the replication protocol (docs/protocol.md), written by hand, so that tests can send what no node would.

use strict;
use warnings;

use Exporter 'import';
use Time::HiRes qw(time);

our @EXPORT = qw(frame hello zone record records chunk varint prefixed now_stamp frames %TYPE);

our %TYPE = (
    HELLO => 1, BYE => 2, PING => 3, PONG => 4, ZONE => 5, REFUSE => 6, SUBSCRIBE => 7, ORIGIN => 8, RECORDS => 9,
    CHUNK => 10, CLEAR => 11, POSITION => 12, ACK => 13, HAVE => 14, OPTIONAL => 0x80,
);

sub varint {
    my ($n) = @_;
    my $out = '';
    while ($n >= 0x80) { $out .= chr($n & 0x7f | 0x80); $n >>= 7 }
    return $out . chr $n;
}

sub prefixed { return varint(length $_[0]) . $_[0] }

sub frame {
    my ($type, $body) = @_;
    return pack('V', 1 + length $body) . chr($type) . $body;
}

# A stamp of this moment, moved by so many milliseconds.
sub now_stamp { return int(1000 * time + ($_[0] // 0)) << 16 }

sub hello {
    my (%given) = @_;
    my $identity = $given{identity} // join '', map { chr 1 + int rand 255 } 1 .. 16;
    return frame($TYPE{HELLO}, ($given{magic} // 'zonemesh')
        . pack('v v', $given{lowest} // 1, $given{highest} // 1) . $identity
        . pack('Q< V', int(1000 * time), $given{bound} // 65_536) . ($given{more} // ''));
}

sub zone {
    my ($number, $name, %given) = @_;
    return frame($TYPE{ZONE}, varint($number) . chr($given{kind} // 1) . chr($given{matching} // 0) . chr($given{joined} // 1)
        . prefixed($name));
}

# A record as it stands in RECORDS: own, without an end.
sub record {
    my ($key, $value, %given) = @_;
    return chr($given{kind} // 1) . chr($given{flags} // 4) . pack('Q<', $given{stamp} // now_stamp()) . prefixed($key) . prefixed($value);
}

sub records { my ($zone, $epoch, @records) = @_; return frame($TYPE{RECORDS}, varint($zone) . varint($epoch) . join '', @records) }

sub chunk {
    my ($zone, $epoch, $flags, $total, $bytes) = @_;
    return frame($TYPE{CHUNK}, varint($zone) . varint($epoch) . chr($flags) . varint($total) . $bytes);
}

# The frames in received bytes, as [type, body]; what is cut at the end is left out.
sub frames {
    my ($bytes) = @_;
    my @frames;
    while (length $bytes >= 5) {
        my $length = unpack 'V', $bytes;
        last if length $bytes < 4 + $length;
        push @frames, [ ord substr($bytes, 4, 1), substr $bytes, 5, $length - 1 ];
        substr $bytes, 0, 4 + $length, '';
    }
    return @frames;
}

1;
