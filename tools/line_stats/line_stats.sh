#!/bin/sh
# Statistics of the lines on standard input; LIMIT and WORD are variables of the environment.
set -eu

# awk reads both from ENVIRON, not by -v, which would take backslashes in them for escapes.
exec awk '
    {
        if ($0 == "") empty++
        else if (seen[$0]++) duplicated++
        size = length($0)
        if (size > ENVIRON["LIMIT"] + 0) long_lines++
        if (size > longest) { longest = size; at = NR }
        if (ENVIRON["WORD"] != "" && index($0, ENVIRON["WORD"])) found++
    }
    END {
        print "lines: " NR
        print "empty: " empty + 0
        print "duplicated: " duplicated + 0
        print "longer than " ENVIRON["LIMIT"] " bytes: " long_lines + 0
        if (longest) print "longest: " longest " bytes (line " at ")"
        if (ENVIRON["WORD"] != "") print "with the word: " found + 0
    }
'
