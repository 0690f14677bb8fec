package ZoneMesh::Bench::Nginx;

# nginx under load: one worker, one wrk with connections kept alive, one kind of response after the other in rounds.

use strict;
use warnings;

use JSON::PP ();
use Time::HiRes qw(time);

use ZoneMesh::Bench::Report;
use ZoneMesh::Node;

my $modules = $ENV{TEST_NGINX_MODULES} || '/usr/lib/nginx/modules';
my @SIZES   = ([ '1k', 1000, '1m' ], [ '100k', 100_000, '11m' ], [ '1M', 1_000_000, '104m' ]);
my %LUA     = ('1k' => '1m', '100k' => '16m', '1M' => '160m');

# Draws a request for a random key; all have been rendered before the clock starts.
my $SCRIPT = <<'LUA';
local requests, n, i = {}, 0, 0
function init(args)
    math.randomseed(os.time())
    local path, keys = args[1], tonumber(args[2])
    local names = {}
    if args[3] then for line in io.lines(args[3]) do names[#names + 1] = line end end
    n = math.min(keys > 1000 and 200000 or 10000, 200000)
    for at = 1, n do
        local key = #names > 0 and names[math.random(#names)] or string.format("key%013d", math.random(0, keys - 1))
        requests[at] = wrk.format("GET", path .. "?k=" .. key)
    end
end
function request()
    i = i % n + 1
    return requests[i]
end
function done(summary, latency, counted)
    local wrong = summary.errors.status + summary.errors.connect + summary.errors.read + summary.errors.timeout
    io.write(string.format("RESULT %d %d %d\n", summary.requests, summary.duration, wrong))
end
LUA

# Starts it and fills it. `prefixes` is how many networks type=ip and geo know.
sub new {
    my ($class, %given) = @_;
    my $self = bless { seconds => $given{seconds}, notes => [] }, $class;
    my ($networks, $addresses) = networks($given{prefixes});
    # A version without type=ip says so when it is asked for.
    for my $ip (1, 0) {
        $self->{node} = ZoneMesh::Node->new(
            modules => [ "$modules/ndk_http_module.so", "$modules/ngx_http_lua_module.so", 'stream', 'zonemesh' ],
            workers => 1, main => 'worker_cpu_affinity 01; worker_rlimit_nofile 4096;', port => $given{port},
            events  => 'worker_connections 1024;', http => http($given{port}, $ip),
        );
        $self->{node}->write_file('geo.conf', join '', map { "$_ 1;\n" } @$networks);
        my ($good, $said) = $self->{node}->check;
        last if $good;
        die "nginx refuses the configuration: $said\n" unless $ip && $said =~ /type/;
        push @{ $self->{notes} }, "type=ip isn't measured through nginx: this version of the module doesn't take it";
        $self->{without_ip} = 1;
        $self->{node}->remove;
    }
    $self->{script}    = $self->{node}->write_file('wrk.lua', $SCRIPT);
    $self->{addresses} = $self->{node}->write_file('addresses', join '', map { "$_\n" } @$addresses);
    $self->{node}->start;
    $self->fill($networks);
    return $self;
}

# The variants that this version can do: [name, path, number of keys, file of keys, the server's name].
sub variants {
    my ($self) = @_;
    my @all = ([ 'constant', '/const', 1000 ], [ 'constant, counted by status_zone', '/const', 1000, undef, 'counted' ]);
    push @all, map { [ "keyval $_->[0]", "/keyval$_->[0]", $_->[1] ], [ "lua $_->[0]", "/lua$_->[0]", $_->[1] ] } @SIZES;
    push @all, [ 'geo',       '/geo', 100_000, $self->{addresses} ];
    push @all, [ 'keyval ip', '/ip',  100_000, $self->{addresses} ] unless $self->{without_ip};
    return @all;
}

# One variant for some seconds: (requests a second, microseconds of the worker's processor time per request).
sub load {
    my ($self, $name, $path, $keys, $file, $host) = @_;
    my ($worker) = $self->{node}->workers;
    my @pin     = -e '/sys/devices/system/cpu/cpu1' ? qw(taskset -c 1) : ();
    my @command = (@pin, 'wrk', '-t1', '-c16', "-d$self->{seconds}s", ($host ? "-H 'Host: $host'" : ()), '-s', $self->{script}, 'http://127.0.0.1:' . $self->{node}->port,
        '--', $path, $keys, $file // ());
    my $before = cpu_ns($worker);
    my $said   = qx(@command 2>&1);
    my $cpu    = cpu_ns($worker) - $before;
    my ($requests, $micros, $wrong) = $said =~ /^RESULT (\d+) (\d+) (\d+)$/m or die "wrk on $path said: $said\n";
    die "$wrong of $requests requests to $path failed\n" if $wrong || !$requests;
    return ($requests * 1e6 / $micros, $cpu / 1000 / $requests);
}

sub stop { my ($self) = @_; $self->{node}->quit(15); $self->{node}->stop; return }

sub notes { return @{ $_[0]{notes} } }

sub http {
    my ($port, $ip) = @_;
    my ($zones, $places) = ('', '');
    for my $size (@SIZES) {
        my ($name, undef, $bytes) = @$size;
        $zones .= <<"CONF";
    keyval_zone zone=z$name:$bytes timeout=1h;
    keyval \$arg_k \$v$name zone=z$name;
    lua_shared_dict d$name $LUA{$name};
CONF
        $places .= <<"CONF";
        location = /keyval$name { return 200 \$v$name; }
        location = /lua$name { set_by_lua_block \$lua { return ngx.shared.d$name:get(ngx.var.arg_k) } return 200 \$lua; }
CONF
    }
    if ($ip) {
        $zones  .= "    keyval_zone zone=ip:32m type=ip;\n    keyval \$arg_k \$vip zone=ip;\n";
        $places .= "        location = /ip { return 200 \$vip; }\n";
    }
    return <<"CONF";
    keepalive_requests 1000000000;
    client_max_body_size 64m;
    client_body_buffer_size 2m;
    geo \$arg_k \$geo { default 0; include geo.conf; }
$zones
    server {
        listen 127.0.0.1:$port;
        server_name counted;
        status_zone counted;
        location = /const { status_zone counted; return 200 "val0000000000000"; }
    }
    server {
        listen 127.0.0.1:$port default_server;
        set \$lua "";
        location /api { api write=on; }
        location = /const { return 200 "val0000000000000"; }
        location = /geo { return 200 \$geo; }
$places
        location = /fill {
            content_by_lua_block {
                local dict = ngx.shared[ngx.var.arg_dict]
                for i = 0, tonumber(ngx.var.arg_n) - 1 do
                    local good, why = dict:safe_set(string.format("key%013d", i), string.format("val%013d", i), 3600)
                    if not good then ngx.say(why, " at ", i) return end
                end
                ngx.say("filled")
            }
        }
    }
CONF
}

sub fill {
    my ($self, $networks) = @_;
    for my $size (@SIZES) {
        my ($name, $count) = @$size;
        # Many at once can be added to an empty zone only.
        $self->post("z$name", join ',', map { sprintf '"key%013d":"val%013d"', $_, $_ } 0 .. $count - 1);
        my $said = $self->{node}->get("/fill?dict=d$name&n=$count")->body;
        die "lua_shared_dict d$name: $said\n" unless $said =~ /^filled/;
    }
    return if $self->{without_ip};
    $self->post('ip', join ',', map { qq("$_":"1") } @$networks);
    return;
}

sub post {
    my ($self, $zone, $pairs) = @_;
    my $answer = $self->{node}->post("/api/9/http/keyvals/$zone", "{$pairs}");
    die "filling $zone: ", $answer->status, ' ', $answer->body, "\n" unless $answer->status == 201;
    return;
}

# Networks of mixed lengths, and addresses that lie in some of them; the same in each run.
sub networks {
    my ($count) = @_;
    my (%seen, @addresses);
    srand 1;
    my @lengths = ((24) x 10, 23, 22, 22, 20, 19, 16, 16, 28, 32, 32, 32);
    while (keys %seen < $count) {
        my $bits = int rand 0xdfffffff;
        my $len  = $lengths[ rand @lengths ];
        my $name = dotted($bits & (0xffffffff << (32 - $len) & 0xffffffff)) . "/$len";
        next if $seen{$name}++;
        push @addresses, dotted($bits);
    }
    return ([ sort keys %seen ], \@addresses);
}

sub dotted { return join '.', unpack 'C4', pack 'N', $_[0] }

1;
