module sidejob/bench

go 1.26.0
