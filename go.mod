module sidejob

go 1.26.0
