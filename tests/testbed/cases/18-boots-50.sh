# here only
# limit: 400 s
# 50 boots in a row on the software CPU, with 1, 2 and 4 vCPUs by turns: none hangs, all end as they should.
. "$(dirname "$0")/../lib.sh"
n=0
while [ $n -lt 50 ]; do
    cpus=$((1 << n % 3))
    code=0
    guest --accel jit --cpus $cpus --timeout 60 -- sh -c 'exit $(nproc)' >"$log" 2>&1 || code=$?
    expect "exit code of boot $n" $cpus "$code"
    n=$((n + 1))
done
