package ZoneMesh::Bench::Report;

# Figures of a run: medians with their spread, tables in Markdown, bar charts in SVG.

use strict;
use warnings;

use Exporter 'import';
use POSIX qw(strftime);
use IO::Socket::INET;

our @EXPORT = qw(median spread figure with_spread ratio row bars circumstances revision busy cpu_ns slurp write_file free_port publish);

# The value below which a share of the samples lies, between neighbours linearly.
sub quantile {
    my ($share, @samples) = @_;
    my @sorted = sort { $a <=> $b } @samples or return;
    my $place  = $share * $#sorted;
    my ($low, $part) = (int $place, $place - int $place);
    return $sorted[$low] + $part * (($sorted[ $low + 1 ] // $sorted[$low]) - $sorted[$low]);
}

sub median { return quantile(0.5, @_) }

# "lower quartile to upper quartile", as a figure is written.
sub spread { return join ' to ', map { figure(quantile($_, @_)) } 0.25, 0.75 }

# Three digits that matter, no more.
sub figure {
    my ($n) = @_;
    return '-' unless defined $n;
    return $n >= 100000 ? sprintf('%.0f k', $n / 1000) : $n >= 100 ? sprintf('%.0f', $n) : $n >= 10 ? sprintf('%.1f', $n) : sprintf('%.2f', $n);
}

sub with_spread { my ($samples) = @_; return figure(median(@$samples)) . ' (' . spread(@$samples) . ')' }

# Ratios of two variants, round by round.
sub ratio {
    my ($of, $to) = @_;
    my $rounds = @$of < @$to ? @$of : @$to;
    return map { $to->[$_] ? $of->[$_] / $to->[$_] : () } 0 .. $rounds - 1;
}

# A row of a table.
sub row { return '| ' . join(' | ', @_) . " |\n" }

# Horizontal bars in groups: bars(title, unit, [group, [name, value, low, high]...]...).
sub bars {
    my ($title, $unit, @groups) = @_;
    my %colour = (zonemesh => '#0b6e4f', other => '#9aa5b1');
    my ($most) = sort { $b <=> $a } map { my (undef, @bars) = @$_; map { $_->[3] } @bars } @groups;
    my ($left, $wide, $y, @out) = (270, 460, 46);
    for my $group (@groups) {
        my ($name, @bars) = @$group;
        push @out, text(10, $y + 12, $name, 'font-weight="bold"');
        $y += 20;
        for my $bar (@bars) {
            my ($label, $value, $low, $high) = @$bar;
            my ($width, $from, $to) = map { sprintf '%.1f', $wide * $_ / $most } $value, $low, $high;
            my $fill = $label =~ /zone|keyval/ ? $colour{zonemesh} : $colour{other};
            push @out, text($left - 8, $y + 11, $label, 'text-anchor="end"'),
                qq(<rect x="$left" y="$y" width="$width" height="14" fill="$fill"/>\n),
                sprintf(qq(<path d="M%s %s H%s" stroke="#222" stroke-width="1.5"/>\n), $left + $from, $y + 7, $left + $to),
                text($left + 8 + ($to > $width ? $to : $width), $y + 11, figure($value), '');
            $y += 18;
        }
        $y += 8;
    }
    my ($all, $high) = ($left + $wide + 80, $y + 8);
    return qq(<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 $all $high" width="$all" height="$high" )
        . qq(font-family="sans-serif" font-size="12">\n<rect width="$all" height="$high" fill="#fff"/>\n)
        . text(10, 20, "$title ($unit)", 'font-size="14"') . join('', @out) . "</svg>\n";
}

sub text {
    my ($x, $y, $said, $how) = @_;
    my %escape = ('&' => '&amp;', '<' => '&lt;', '>' => '&gt;');
    $said =~ s/([&<>])/$escape{$1}/g;
    return qq(<text x="$x" y="$y" $how>$said</text>\n);
}

# A table of what it ran on and how: `load` is what busy() said before, `versions` a text; `command` began at `began`.
sub circumstances {
    my (%given) = @_;
    my @rows = (
        machine(),
        [ 'Load', "$given{load} before, @{[ busy() ]} after; figures of a machine that did other work too are worth little" ],
        [ 'Versions', $given{versions} ],
        [ 'Date',    strftime('%Y-%m-%d %H:%M UTC', gmtime) ],
        [ 'Command', sprintf '`%s`, %.0f s', $given{command}, time - $given{began} ],
    );
    return join '', row('', ''), row('---', '---'), map { row(@$_) } @rows;
}

# What is measured: "zonemesh at COMMIT, nginx VERSION".
sub revision {
    my ($nginx) = qx(nginx -v 2>&1) =~ m{nginx/(\S+)};
    chomp(my $commit = qx(git rev-parse --short HEAD 2>/dev/null) || 'unknown');
    return "zonemesh at $commit, nginx $nginx";
}

sub machine {
    my ($model) = slurp('/proc/cpuinfo') =~ /^model name\s*:\s*(.*)$/m;
    my ($cores) = scalar(() = slurp('/proc/cpuinfo') =~ /^processor\s*:/mg);
    my ($kib)   = slurp('/proc/meminfo') =~ /^MemTotal:\s+(\d+)/m;
    my ($system) = slurp('/etc/os-release') =~ /^PRETTY_NAME="?([^"\n]*)/m;
    chomp(my $kernel = qx(uname -r));
    return (
        [ 'Processor', ($model // 'unknown') . ", $cores cores" ],
        [ 'Memory',    sprintf '%.0f GiB', ($kib // 0) / 1024 / 1024 ],
        [ 'System',    ($system // 'unknown') . ", Linux $kernel" ],
    );
}

# How much else the machine did: the load average of the last minute.
sub busy { return (split ' ', slurp('/proc/loadavg'))[0] }

# Processor time of a process's main thread, nanoseconds.
sub cpu_ns { return (split ' ', slurp("/proc/$_[0]/schedstat"))[0] // 0 }

# Puts a mode's part (its title, then text with headings of the third level) into docs/benchmarks.md or another page, in place
# of what the last run of this mode wrote; the parts of other modes stay, and what is written by hand.
sub publish {
    my ($mode, $title, $text, $path) = @_;
    $path //= 'docs/benchmarks.md';
    my $page = slurp($path);
    $page = "# Benchmarks\n\nEach part is written by a mode of `scripts/bench`: don't edit it here. Variants take turns in rounds; a figure is\n"
        . "the median of the rounds, in parentheses the quartiles. Only ratios within one run count.\n" unless $page =~ /\S/;
    my $part = "<!-- $mode -->\n\n## $title\n\n$text\n<!-- end of $mode -->\n";
    $page =~ s/^<!-- \Q$mode\E -->\n.*?^<!-- end of \Q$mode\E -->\n/$part/ms or $page .= "\n$part";
    write_file($path, $page);
    print STDERR "bench: wrote the part \"$title\" of $path\n";
    return;
}

sub write_file {
    my ($path, $text) = @_;
    open my $file, '>', $path or die "$path: $!\n";
    print {$file} $text;
    close $file or die "$path: $!\n";
    return;
}

sub free_port {
    my $socket = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Proto => 'tcp', Listen => 1) or die "no port: $!\n";
    return $socket->sockport;
}

sub slurp {
    my ($path) = @_;
    open my $file, '<', $path or return '';
    local $/;
    return readline($file) // '';
}

1;
