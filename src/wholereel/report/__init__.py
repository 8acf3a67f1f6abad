"""Pictures and pages from results: charts as plain SVG text, self-contained HTML, timelines of videos."""
