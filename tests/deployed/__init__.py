"""`make deploy-test`: what is shipped, brought up for real; minutes, and as far as the machine can."""
